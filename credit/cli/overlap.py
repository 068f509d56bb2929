"""`credit overlap`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from credit.cli.options import (
    FILE,
    field_mapping,
    field_option,
    json_option,
    progress_bar,
    say,
    terminal_width,
    warn,
)
from credit.errors import EXIT_PARTIAL
from credit.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit.fidelity.overlap import Overlap

_SHOWN = 3


@click.command()
@click.argument("data", type=FILE, nargs=-1, required=True)
@field_option
@click.option("--least", default=0.8, show_default=True, help="Name records of which this fraction stands elsewhere.")
@click.option("--records", type=FILE, help="Write the named records to this file, as CSV.")
@json_option
@click.pass_context
def overlap(
    ctx: click.Context,
    data: tuple[Path, ...],
    fields: tuple[str, ...],
    least: float,
    records: Path | None,
    as_json: bool,
) -> None:
    """Show whose text in DATA others contributed too: near-copies, padding with common text, repetition.

    Such text is paid to whoever brings it, so look before an index is built: leave out of DATA what is not its
    contributor's to bring, or agree on who it belongs to. Case, blanks and punctuation make no difference.

    \b
    shared    of the provider's text, what any other provider has
    before    the same, where the other's record stands earlier in DATA
    repeated  what repeats its own text

    \b
    Example: credit overlap train.jsonl --least 0.5 --records near-copies.csv
    """
    from dataclasses import asdict

    from credit.fidelity.overlap import find_overlap
    from credit.ingest.training import TrainingReader
    from credit.storage import write_whole

    reader = TrainingReader(data, fields=field_mapping(fields))
    with progress_bar("comparing", "records") as update:
        found = find_overlap(reader, least=least, progress=update)
    warn([*reader.notices, *(str(item) for item in reader.quarantined)])
    if records is not None:
        write_whole(records, _csv(found).encode())
    say(as_json, asdict(found), "\n".join(_lines(found, least, records)))
    if reader.quarantined:
        ctx.exit(EXIT_PARTIAL)


def _csv(found: Overlap) -> str:
    from dataclasses import asdict, fields

    import polars as pl

    from credit.fidelity.overlap import RecordOverlap
    from credit.reporting.tables import to_csv

    names = [item.name for item in fields(RecordOverlap)]
    texts = {"id", "provider", "other"}
    schema = {name: pl.String if name in texts else pl.Float64 for name in names}
    return to_csv(pl.DataFrame([asdict(item) for item in found.records], schema=schema))


def _lines(found: Overlap, least: float, records: Path | None) -> Iterator[str]:
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
