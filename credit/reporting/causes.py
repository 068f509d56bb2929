"""Causes of a provider's credits: the users, prompts and days behind them, each with its share.

Credits are those of each output by itself, less those beyond the limits on users. A policy that sums over the period
moves them afterwards among providers; that belongs to no single output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import polars as pl
from sqlalchemy import Connection, select

from credit.errors import LedgerError
from credit.ledger.limits import LimitedOutput, limited_outputs
from credit.ledger.periods import existing_period
from credit.ledger.providers import provider_id
from credit.ledger.schema import output
from credit.ledger.score_books import standing_scores
from credit.text import printable

Cause = Literal["user", "prompt", "day"]
CAUSES: tuple[Cause, ...] = ("user", "prompt", "day")

UNKNOWN_USER = "not logged"
_SHOWN_CHARACTERS = 80
_BATCH = 500

SCHEMA = {
    "by": pl.String, "cause": pl.String, "outputs": pl.Int64, "credit_micro": pl.Int64, "share": pl.Float64,
}  # fmt: skip


def causes(
    conn: Connection, books: Path, provider: str, periods: Sequence[str], *, top: int = 20, prompts: bool = True
) -> pl.DataFrame:
    """Return where a provider's credits of some periods came from.

    Args:
        conn: from `Ledger.read`.
        books: folder of the score books.
        provider: the provider's key.
        periods: the periods `YYYY-MM`.
        top: users, prompts and days to name, those with most credits first.
        prompts: show the beginning of prompts; otherwise the pseudonyms of the texts.

    Returns:
        One row for each user (a pseudonym), prompt and day: `by`, `cause`, `outputs` with credits for the provider,
        `credit_micro`, and `share` of the provider's credits.

    Raises:
        LedgerError: the provider or a period is unknown, or the provider has no credits.
        IntegrityError: a score book is missing or changed.
    """
    provider_id(conn, provider)
    sums: dict[Cause, dict[str, list[int]]] = {cause: {} for cause in CAUSES}
    for period in periods:
        existing_period(conn, period)
        limited = limited_outputs(conn, period)
        for _, rows in standing_scores(conn, books, period):
            own = rows.filter((pl.col("provider") == provider) & (pl.col("credit_micro") > 0))
            _add(conn, own, limited, sums, prompts=prompts)
    total = sum(micro for _, micro in sums["day"].values())
    if not total:
        raise LedgerError(f"{provider} has no credits of outputs in {', '.join(periods)}")
    found = []
    for cause, own_sums in sums.items():
        ordered = sorted(own_sums.items(), key=lambda item: (-item[1][1], item[0]))[:top]
        found += [(cause, name, count, micro, micro / total) for name, (count, micro) in ordered]
    return pl.DataFrame(found, schema=SCHEMA, orient="row")


def _add(
    conn: Connection,
    rows: pl.DataFrame,
    limited: Mapping[int, LimitedOutput],
    sums: Mapping[Cause, dict[str, list[int]]],
    *,
    prompts: bool,
) -> None:
    """Add the credits of a book's rows to the sums by cause: outputs, and micro-credits."""
    by_output = rows.group_by("output_id", "day", maintain_order=True).agg(pl.col("credit_micro").sum())
    for start in range(0, by_output.height, _BATCH):
        part = by_output.slice(start, _BATCH)
        said = _users_and_prompts(conn, part["output_id"].to_list(), prompts=prompts)
        for number, day, credited in part.iter_rows():
            less = limited.get(number)
            micro = credited if less is None else credited * less.counted_micro // less.output.weight_micro
            if micro:
                user, prompt = said[number]
                named: dict[Cause, str] = {"user": user, "prompt": prompt, "day": day}
                for cause, name in named.items():
                    counts = sums[cause].setdefault(name, [0, 0])
                    counts[0] += 1
                    counts[1] += micro


def _users_and_prompts(conn: Connection, ids: Sequence[int], *, prompts: bool) -> dict[int, tuple[str, str]]:
    columns = (output.c.id, output.c.user_hmac, output.c.text_hmac, output.c.prompt, output.c.messages_json)
    found = {}
    for number, user, text, prompt, turns in conn.execute(select(*columns).where(output.c.id.in_(ids))):
        shown = printable(" ".join((prompt or turns or "").split()))[:_SHOWN_CHARACTERS] if prompts else text or ""
        found[number] = (user or UNKNOWN_USER, shown or text or "no prompt")
    return found
