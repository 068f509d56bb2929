"""`credit membership`."""

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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from credit.fidelity.membership import Learned


@click.command()
@click.argument("model", type=FILE)
@click.argument("earlier", type=FILE)
@click.argument("data", type=FILE, nargs=-1, required=True)
@click.option("--tokens", default=50_000, show_default=True, help="How many of each provider's tokens are read.")
@click.option("--max-length", type=click.IntRange(min=2), help="Tokens read in one pass.  [default: as for an index]")
@click.option("--dtype", type=click.Choice(["auto", "fp32", "bf16", "fp64"]), default="auto", show_default=True)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@field_option
@json_option
@click.pass_context
def membership(
    ctx: click.Context,
    model: Path,
    earlier: Path,
    data: tuple[Path, ...],
    tokens: int,
    max_length: int | None,
    dtype: str,
    device: str,
    fields: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show how much MODEL has learned of everybody's text in DATA since EARLIER: what it never saw stands out.

    EARLIER is a checkpoint of MODEL's training, or what it was tuned from. Who is in an index is paid for what
    data like theirs does to answers, whether the model ever saw it or not. So look before an index is built, and leave
    out what was not trained on. A checkpoint from the middle of the training, a pass over the data before its end,
    tells most; since the model that MODEL was tuned from, text that was easy from the start stands out too.

    \b
    before    loss at EARLIER, nats per token
    after     loss of MODEL
    learned   the fall from the one to the other
    relative  the same over its median among the other providers, with a 90 % interval; all below 0.7 is doubted

    That somebody's text was learned as well as others' does not prove that it was trained on: in a large model that
    read everything once, what it read may leave no trace that this could see.

    \b
    Example: credit membership my-model my-model-checkpoints/step-500 train.jsonl
    """
    from dataclasses import asdict
    from functools import partial

    from credit.fidelity.membership import what_was_learned
    from credit.ingest.training import TrainingReader
    from credit.valuation import load_model

    reader = TrainingReader(data, fields=field_mapping(fields))
    load = [partial(load_model, path, dtype=dtype, device=device) for path in (earlier, model)]
    with progress_bar("reading", "windows") as update:
        found = what_was_learned(load, reader, max_length=max_length, tokens=tokens, progress=update)
    warn([*reader.notices, *(str(item) for item in reader.quarantined)])
    facts = [asdict(item) | {"learned": item.learned, "doubted": item.doubted} for item in found]
    say(as_json, {"providers": facts}, "\n".join(_lines(found)))
    if reader.quarantined:
        ctx.exit(EXIT_PARTIAL)


def _lines(found: Sequence[Learned]) -> Iterator[str]:
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
    for item in found:
        if item.doubted:
            part = f"{item.relative.value:.2f} of what was learned of the others" if item.learned > 0 else "nothing"
            yield (
                f"\n{item.provider}: {part} was learned of it. Was the model trained on it? If not, leave it out of the"
                " index."
            )
    if not any(item.doubted for item in found):
        yield "\nnobody's text stands out as one that the model was not trained on"
