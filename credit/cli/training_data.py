"""`credit data check`, `credit overlap` and `credit membership`: checks of training data before an index is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from credit.cli.options import (
    FILE,
    CommandGroup,
    device_option,
    dtype_option,
    ledger_options,
    training_options,
    workspace_options,
)
from credit.cli.printing import as_json, progress_bar, say, terminal_width, warn
from credit.cli.report import deliver, report_options, table_width
from credit.errors import EXIT_PARTIAL
from credit.text import counted, printable_lines

if TYPE_CHECKING:
    from credit.fidelity.data_check import DataCheck
    from credit.fidelity.membership import Learned
    from credit.fidelity.overlap import Overlap
    from credit.fidelity.reviews import IndexReview
    from credit.ingest.training import TrainingReader
    from credit.ingest.training_source import TrainingSource
    from credit.pipeline.workspace import Workspace

_SHOWN = 3
"""Providers named of those who share text with another."""
_ROWS, _COPIES = 50, 10
"""Providers and near-copies that a table names."""


@click.group(cls=CommandGroup)
def data() -> None:
    """Look at training data before an index is built.

    \b
    Example: credit data check train.jsonl --model my-model
    """


@data.command()
@click.argument("data", type=FILE, nargs=-1, required=True)
@click.option("--model", type=FILE, help="Model to count tokens for; its weights are not read.")
@click.option("--max-length", type=click.IntRange(min=2), help="Tokens of a window.  [default: as for an index]")
@click.option("--least", default=0.8, show_default=True, help="Fraction of others' text that makes a near-copy.")
@click.option("--ledger/--no-ledger", default=True, show_default=True, help="Compare providers with the ledger's.")
@training_options()
@report_options("table", "json", "html")
@workspace_options
def check(
    workspace: Workspace,
    data: tuple[Path, ...],
    model: Path | None,
    max_length: int | None,
    least: float,
    ledger: bool,
    source: TrainingSource,
    form: Literal["table", "json", "html"],
    out: Path | None,
) -> None:
    """Say what an index would take of DATA, and what to look at first. Nothing is written.

    It counts records and tokens by provider; names records that cannot be used, providers that the ledger does not
    know, repeats, near-copies among providers and over-long texts; and lists licences, and declarations that forbid
    training: reservations of text and data mining (TDM), RSL, robots' rules.

    The exit code is 3 if an index would leave something out, or a declaration forbids training.

    \b
    Example: credit data check train.jsonl --model my-model
             credit data check corpus/ --provider-from path --format html --out check.html
    """
    from credit.pipeline.data_check import DataCheckRequest, check_training_data

    request = DataCheckRequest(data, source, model, max_length, least, ledger)
    with progress_bar("comparing", "records") as update:
        found = check_training_data(workspace, request, update)
    if form == "html":
        from credit.reporting.pages import data_check_page

        text = data_check_page(found)
    elif form == "json":
        text = as_json({"left_out": found.left_out, "check": found})
    else:
        text = printable_lines("\n".join(_check_lines(found, table_width(out))))
    deliver(text, out)
    if not found.is_clean:
        click.get_current_context().exit(EXIT_PARTIAL)


def _check_lines(found: DataCheck, width: int) -> Iterator[str]:
    import polars as pl

    from credit.reporting.tables import share_text, to_table

    rows = [
        {
            "provider": item.provider if item.known else f"{item.provider} (unknown)",
            "records": item.records,
            "characters" if item.tokens is None else "tokens": item.characters if item.tokens is None else item.tokens,
            "shared": item.shared,
            "before": item.before,
            "repeated": item.repeated,
            "forbid training": item.forbidding,
        }
        for item in found.providers[:_ROWS]
    ]
    yield to_table(pl.DataFrame(rows), width=width).rstrip("\n") if rows else "there is no usable record"
    if len(found.providers) > _ROWS:
        yield f"the first {_ROWS} of {len(found.providers)} providers; --format json names all"
    yield ""
    yield f"{counted(found.records, 'usable record')}, {found.left_out} would be left out"
    for count, what in (
        (found.quarantined, "quarantined"),
        (found.unknown, "of providers that the ledger does not know; add them: credit providers add KEY NAME"),
        (found.empty, "without a token to predict"),
        (found.repeats, "repeated by their provider"),
    ):
        if count:
            yield f"  {count} {what}"
    if found.over_long:
        yield f"{counted(found.over_long, 'record')} longer than a window: cut into several"
    for item in found.forbidding:
        yield f"forbids training: {item.text} ({counted(item.records, 'row')}, the first is {item.place})"
    for item in found.licences:
        yield f"licence: {item.text} ({counted(item.records, 'row')})"
    for copy in found.near_copies[:_COPIES]:
        yield f"near-copy: {copy.id} of {copy.provider}, {share_text(copy.shared)}, most with {copy.other}"
    if found.near_copies_in_all > _COPIES:
        yield f"near-copies in all: {found.near_copies_in_all}; credit overlap --records FILE lists them"
    yield from (*found.problems, *found.notices)


register_option = click.option(
    "--register", "index", type=FILE, metavar="INDEX", help="Record the result in the ledger as a review of INDEX."
)


@click.command()
@click.argument("data", type=FILE, nargs=-1, required=True)
@training_options()
@click.option("--least", default=0.8, show_default=True, help="Shared fraction from which a record is named.")
@click.option("--records", type=FILE, help="Write the named records to this file, as CSV.")
@register_option
@click.option("--model", type=FILE, help="New place of the index's model, if moved; its tokenizer is read.")
@ledger_options
def overlap(
    workspace: Workspace,
    data: tuple[Path, ...],
    source: TrainingSource,
    least: float,
    records: Path | None,
    index: Path | None,
    model: Path | None,
) -> None:
    """Find text in DATA that several providers contributed: near-copies, padding with common text, repetition.

    Such text is paid to everybody who brings it, so look before an index is built. Leave it out of DATA where it is
    not the provider's own, or agree on its owner. Case, blanks, punctuation, look-alike letters of
    other scripts, invisible characters, digits glued to words and a replaced word here and there make no difference.

    \b
    shared    fraction of the provider's text that other providers have too
    before    the same, counting only records of others that stand earlier in DATA
    repeated  fraction that repeats the provider's own text

    A close asks for a review of every index that decides its credits: --register records it, with what was found. DATA
    must then be the data that the index was built from.

    \b
    Example: credit overlap train.jsonl --least 0.5 --records near-copies.csv
             credit overlap train.jsonl --register my-index
    """
    from credit.fidelity.overlap import find_overlap
    from credit.ingest.training import TrainingReader
    from credit.pipeline.reviews import IndexedData, record_overlap
    from credit.storage import write_whole

    indexed = None if index is None else IndexedData(workspace, index, data, source, model=model)
    reader = TrainingReader(data, source=source) if indexed is None else indexed.reader
    with progress_bar("comparing", "records") as update:
        found = find_overlap(reader if indexed is None else indexed, least=least, progress=update)
    if records is not None:
        write_whole(records, _overlap_csv(found).encode())
    review = None if indexed is None else record_overlap(indexed, found, least=least)
    lines = [*_overlap_lines(found, least, records), *_review_lines(review)]
    say(_with_review(asdict(found), review), *lines, exit_code=_warn_of_bad_records(reader))


def _with_review(facts: Mapping[str, object], review: IndexReview | None) -> dict[str, object]:
    """Add the recorded review to the facts of a command, if there is one."""
    return {**facts, **({} if review is None else {"review": review.sha256, "index": review.index})}


def _review_lines(review: IndexReview | None) -> Iterator[str]:
    if review is not None:
        yield f"\nrecorded for the index {review.index[:16]}: {review.kind} review {review.sha256[:16]}"


def _warn_of_bad_records(reader: TrainingReader) -> int:
    """Print the doubtful and the bad records; return the exit code."""
    warn(*reader.notices, *map(str, reader.quarantined))
    return EXIT_PARTIAL if reader.quarantined else 0


def _overlap_csv(found: Overlap) -> str:
    from dataclasses import fields

    import polars as pl

    from credit.fidelity.overlap import RecordOverlap
    from credit.reporting.tables import to_csv

    names = [item.name for item in fields(RecordOverlap)]
    texts = {"id", "provider", "other"}
    schema = {name: pl.String if name in texts else pl.Float64 for name in names}
    return to_csv(pl.DataFrame([asdict(item) for item in found.records], schema=schema))


def _overlap_lines(found: Overlap, least: float, records: Path | None) -> Iterator[str]:
    import polars as pl

    from credit.reporting.tables import share_text, to_table

    rows = [
        {
            "provider": item.provider,
            "records": item.records,
            "shared": item.shared,
            "before": item.before,
            "repeated": item.repeated,
            "with": ", ".join(f"{name} {share_text(part)}" for name, part in item.others[:_SHOWN]),
        }
        for item in found.providers
    ]
    yield to_table(pl.DataFrame(rows), width=terminal_width()).rstrip("\n") if rows else "there is no text to compare"
    if found.sampled < 1:
        yield f"\nfrom one shingle in {1 / found.sampled:.0f}: fractions of short records are rough"
    count = len(found.records)
    if count:
        where = f"; listed in {records}" if records else "; --records FILE lists them"
        found_in = "found in others' text, or before in their provider's own"
        yield f"\n{counted(count, 'record')} {found_in}, to {least:.0%} or more{where}"


@click.command()
@click.argument("model", type=FILE)
@click.argument("earlier", type=FILE)
@click.argument("data", type=FILE, nargs=-1, required=True)
@click.option("--tokens", default=50_000, show_default=True, help="Tokens read of each provider.")
@click.option("--max-length", type=click.IntRange(min=2), help="Tokens read in one pass.  [default: as for an index]")
@dtype_option
@device_option
@training_options()
@register_option
@ledger_options
def membership(
    workspace: Workspace,
    model: Path,
    earlier: Path,
    data: tuple[Path, ...],
    tokens: int,
    max_length: int | None,
    dtype: str,
    device: str,
    source: TrainingSource,
    index: Path | None,
) -> None:
    """Find text in DATA that MODEL shows no sign of having learned since EARLIER.

    Everybody in an index is paid for the effect of data like theirs, even if the model never saw it. So look before
    an index is built, and leave out data that the model was not trained on.

    EARLIER is a checkpoint of MODEL's training, or the model that it was tuned from. Best is a checkpoint from the
    middle of the training, one pass over the data before its end. Since the model that MODEL was tuned from, text that
    was easy from the start stands out too.

    \b
    before    loss of EARLIER, nats per token
    after     loss of MODEL
    learned   the fall from before to after
    relative  learned over its median among the other providers, with a 90 % interval; doubted if all below 0.7

    Text learned as well as the others' is no proof of training: a large model that read everything once may keep no
    trace of it.

    A close asks for a review of every index that decides its credits: --register records it, with what was found. MODEL
    and DATA must then be those that the index was built from.

    \b
    Example: credit membership my-model my-model-checkpoints/step-500 train.jsonl
             credit membership my-model my-model-checkpoints/step-500 train.jsonl --register my-index
    """
    from functools import partial

    from credit.fidelity.membership import what_was_learned
    from credit.ingest.training import TrainingReader
    from credit.pipeline.reviews import IndexedData, record_membership
    from credit.valuation import load_model

    indexed = None if index is None else IndexedData(workspace, index, data, source, model=model)
    if indexed is not None:
        indexed.check_model(model)  # before the passes, which can take long
    reader = TrainingReader(data, source=source) if indexed is None else indexed.reader
    load = [partial(load_model, path, dtype=dtype, device=device) for path in (earlier, model)]
    with progress_bar("reading", "windows") as update:
        found = what_was_learned(
            load, reader if indexed is None else indexed, max_length=max_length, tokens=tokens, progress=update
        )
    review = (
        None
        if indexed is None
        else record_membership(indexed, found, earlier=earlier, max_length=max_length, tokens=tokens)
    )
    facts = [asdict(item) | {"learned": item.learned, "doubted": item.doubted} for item in found]
    lines = [*_membership_lines(found), *_review_lines(review)]
    say(_with_review({"providers": facts}, review), *lines, exit_code=_warn_of_bad_records(reader))


def _membership_lines(found: Sequence[Learned]) -> Iterator[str]:
    import polars as pl

    from credit.reporting.tables import to_table

    rows = [
        {
            "provider": item.provider,
            "tokens": item.tokens,
            "before (nats)": f"{item.before:.2f}",
            "after (nats)": f"{item.after:.2f}",
            "learned": f"{item.learned:.3f}",
            "relative": f"{item.relative.value:.2f} ({item.relative.low:.2f} to {item.relative.high:.2f})",
        }
        for item in sorted(found, key=lambda item: item.relative.value)
    ]
    yield to_table(pl.DataFrame(rows), width=terminal_width()).rstrip("\n")
    doubted = [item for item in found if item.doubted]
    for item in doubted:
        much = (
            f"{item.relative.value:.2f} times as much of it as of the others" if item.learned > 0 else "nothing of it"
        )
        yield f"\n{item.provider}: the model learned {much}."
        yield "Was it trained on this text? If not, leave it out of the index."
    if not doubted:
        yield "\nthe model learned from everybody's text: none stands out"
