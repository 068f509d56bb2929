"""Reports as frames: the credits of a period by provider, collection, day or output, and its payouts.

`credit.ledger.score_books` decides which outputs belong to a period. Credits of an output come from its score book.
Those of a provider, collection or day come from the ledger's entries, and every book is checked against the entries
posted from it. A correction (a reversal or adjustment posted in the period) moves the credits of its group and day. It
belongs to no single output: rows by output do not show it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl
from sqlalchemy import Connection

from credit.accounting.amounts import format_amount
from credit.accounting.credits import Policy
from credit.accounting.statement_lines import STATEMENT_LINES
from credit.errors import IntegrityError, InvalidRequestError, LedgerError
from credit.fidelity.certificate import period_attribution_error
from credit.fidelity.intervals import ShareBootstrap
from credit.ledger.credits import CreditRow, credit_rows
from credit.ledger.payouts import Payout
from credit.ledger.payouts import payouts as all_payouts
from credit.ledger.periods import existing_period, periods
from credit.ledger.providers import providers
from credit.ledger.score_books import MEASURES, book_scores, scores, standing_rows
from credit.ledger.statements import Statement, refuse_altered
from credit.ledger.statements import statements as all_statements
from credit.ledger.transactions import reversed_transactions

By = Literal["provider", "collection", "output", "day"]
Key = tuple[str, ...]

BY_PROVIDER: Key = ("provider",)
BY_COLLECTION: Key = ("provider", "collection")
BY_DAY: Key = ("day",)
BY_DAY_AND_PROVIDER: Key = ("day", "provider")
BY_COLLECTION_AND_DAY: Key = ("provider", "collection", "day")

_KEYS: dict[By, Key] = {"provider": BY_PROVIDER, "collection": BY_COLLECTION, "day": BY_DAY}

OUTPUT_COLUMNS = ("output_id", "provider", "collection", *MEASURES, "credit_micro")
"""Columns of the attribution by output. `output_id` is the output's name in the log."""

HEAVIEST_SCHEMA = {
    "output_id": pl.String(),
    "day": pl.String(),
    "credit_micro": pl.Int64(),
    "groups": pl.Int64(),
    "provider": pl.String(),
    "collection": pl.String(),
    "group_micro": pl.Int64(),
}
"""Columns of `heaviest_outputs`."""

MONEY_COLUMNS = tuple(line.name for line in STATEMENT_LINES)
"""Columns of payouts that hold amounts, as decimal strings in the row's currency: the lines of a statement."""

TREND_SCHEMA = {
    "period": pl.String(),
    "provider": pl.String(),
    "credit_micro": pl.Int64(),
    "share": pl.Float64(),
    "share_low": pl.Float64(),
    "share_high": pl.Float64(),
    "currency": pl.String(),
    "earned": pl.String(),
    "payable": pl.String(),
}
"""Columns of `trends`."""

_NO_CREDITS = {"credit_micro": 0, "share": 0.0, "share_low": 0.0, "share_high": 0.0}

PAYOUT_COLUMNS = ("provider", "name", "currency", *MONEY_COLUMNS, "status", "reason")


@dataclass(slots=True)
class _Sum:
    """Sums of one key, such as a provider."""

    outputs: int = 0
    measures: list[float] = field(default_factory=lambda: [0.0] * len(MEASURES))
    credit_micro: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of a period by several keys, from one pass over its score books.

    Attributes:
        outputs: number of valued outputs.
        credit_micro: all credits of the period, from the ledger.
        corrections_micro: the part of them that corrections posted, and not outputs.
        frames: for each key, its columns, then outputs, influence, support, effect, credit_micro and share. Keys
            without a day also have share_low and share_high, and the provider alone rank_low and rank_high.
        covers_attribution: True if these intervals also cover the error of the estimate, as validation of every index
            and policy of the period found it; False if they cover the choice of outputs alone.
    """

    outputs: int
    credit_micro: int
    corrections_micro: int
    frames: Mapping[Key, pl.DataFrame]
    covers_attribution: bool


def attribution(conn: Connection, books_folder: Path, period: str, by: By) -> pl.DataFrame:
    """Return the credits of a period with the measures behind them.

    By `output`: one row for every output and group (and for the house where nobody earned an output's credit), with
    the columns `OUTPUT_COLUMNS`, ordered by output and group.

    By `provider`, `collection` or `day`: the key's columns (and the provider's `name`), `outputs` (the number that
    gave it credit), `influence`, `support` and `effect` summed over all outputs (nats), `credit_micro`, and `share`,
    the fraction of the period's credits; ordered by key.

    By provider and collection also `share_low` and `share_high`, the 90 % interval of the share. It is over the choice
    of outputs. Where each output pays alone and retraining has validated every index and policy of the period, it is
    over the error of the estimate as well. By provider also `rank_low` and `rank_high`, the first and last place among
    the providers that it can have: shares between cannot be told apart. The house has no place.

    Args:
        conn: from `Ledger.read`.
        books_folder: folder of the score books.
        period: the month, `YYYY-MM`.
        by: the key of a row.

    Raises:
        LedgerError: the ledger has no such period.
        IntegrityError: a score book is missing or changed, or the ledger says something else.
        InvalidRequestError: `by` is none of the four.
    """
    if by == "output":
        return _by_output(conn, books_folder, period)
    if by not in _KEYS:
        raise InvalidRequestError(f"attribution by {by!r}: it must be one of provider, collection, output, day")
    frame = totals(conn, books_folder, period, [_KEYS[by]]).frames[_KEYS[by]]
    if by == "provider":
        names = {item.key: item.name for item in providers(conn)}
        name = pl.Series("name", [names[key] for key in frame["provider"]], dtype=pl.String)
        frame = frame.insert_column(1, name)
    return frame


def totals(conn: Connection, books_folder: Path, period: str, keys: Sequence[Key]) -> Totals:
    """Add up a period by each of `keys`, in memory that does not grow with the number of outputs.

    Raises:
        LedgerError, IntegrityError: as `attribution`.
    """
    closed = existing_period(conn, period).status == "closed"
    sums: dict[Key, dict[tuple[str, ...], _Sum]] = {key: {} for key in keys}
    error = period_attribution_error(conn, period)
    bootstraps = {key: ShareBootstrap(key, error or 0.0) for key in keys if "day" not in key}
    undone = reversed_transactions(conn)
    # Credits of a period and of its books differ by corrections: reversals, and moves by the sums of the period.
    outputs = booked = 0
    for book, rows in book_scores(conn, books_folder, period):
        outputs += rows["output_id"].n_unique()
        booked += int(rows["credit_micro"].sum())
        for key in keys:
            _add_rows(sums[key], key, rows)
        policy = Policy.from_json(book.policy_json)
        for bootstrap in bootstraps.values():
            # Until the close adds up the period, each output pays alone, and so say the shares.
            bootstrap.add(standing_rows(book, rows, undone), policy if closed else policy.of_one_output)
    posted = credit_rows(conn, period)
    for key in keys:
        _add_entries(sums[key], key, posted)
    total = sum(row.credit_micro for row in posted)
    frames = {key: _to_frame(key, sums[key], total) for key in keys}
    ranked = {(item.key,) for item in providers(conn) if item.kind == "provider"}
    for key, bootstrap in bootstraps.items():
        frames[key] = _with_intervals(key, frames[key], bootstrap, ranked)
    return Totals(outputs, total, total - booked, frames, error is not None)


def payouts(conn: Connection, period: str) -> pl.DataFrame:
    """Return the balances of every statement of a closed period: columns `PAYOUT_COLUMNS`, by provider.

    Amounts are decimal strings beside their currency. `status` is the payout's (pending, exported, paid, failed), or
    `carried` where money is carried forward, `converted` where it is paid in another currency, and `none` where there
    is none. Of a provider's statements the latest version counts.

    Raises:
        LedgerError: the ledger has no such period, or it is open.
        IntegrityError: a statement was changed since it was stored, or differs from its payout.
    """
    told = latest_statements(conn, period)
    paid = {(item.provider, item.currency): item for item in all_payouts(conn, period)}
    rows = []
    for item in told:
        body = json.loads(item.body_json)
        for balance in body["balances"]:
            payout = paid.pop((item.provider, balance["currency"]), None)
            status = _status(item, balance, payout)
            rows.append({**balance, **body["provider"], "provider": item.provider, "status": status})
    if paid:
        provider, currency = min(paid)
        where = f"the payout of {period} to {provider} in {currency}"
        raise IntegrityError(f"{where} stands in no statement; run credit verify")
    return pl.DataFrame(
        {name: [row[name] for row in rows] for name in PAYOUT_COLUMNS}, schema=dict.fromkeys(PAYOUT_COLUMNS, pl.String)
    )


def trends(conn: Connection, books_folder: Path, since: str | None = None, until: str | None = None) -> pl.DataFrame:
    """Return the shares and the money of every provider by month: columns `TREND_SCHEMA`, by period and provider.

    Share and interval are as in `attribution`. A provider has a line for each currency of its statement, with the
    amounts as decimal strings; one line without a currency where the period is open, or it got no statement.

    Args:
        conn: from `Ledger.read`.
        books_folder: folder of the score books.
        since: the first month, `YYYY-MM`; None: from the first one on.
        until: the last month; None: up to the last one.

    Raises:
        IntegrityError: as `attribution` and `payouts`.
    """
    rows: list[dict[str, Any]] = []
    for period in periods(conn):
        if period.id < (since or "") or (until is not None and period.id > until):
            continue
        money: dict[str, list[dict[str, str]]] = {}
        for item in latest_statements(conn, period.id) if period.status == "closed" else ():
            money[item.provider] = json.loads(item.body_json)["balances"]
        frame = totals(conn, books_folder, period.id, [BY_PROVIDER]).frames[BY_PROVIDER]
        for row in frame.iter_rows(named=True):
            balances = money.pop(row["provider"], []) or [dict.fromkeys(("currency", "earned", "payable"), "")]
            rows += [{**row, **balance, "period": period.id} for balance in balances]
        # Whoever earned no credits can have money: an adjustment, or what was carried on.
        rows += [
            {**_NO_CREDITS, **balance, "period": period.id, "provider": provider}
            for provider, balances in sorted(money.items())
            for balance in balances
        ]
    return pl.DataFrame([{name: row[name] for name in TREND_SCHEMA} for row in rows], schema=TREND_SCHEMA)


def latest_statements(conn: Connection, period: str) -> list[Statement]:
    """Return the latest version of every statement of a closed period, by provider.

    Raises:
        LedgerError: the ledger has no such period, or it is open.
        IntegrityError: a statement does not have its stored SHA-256.
    """
    if existing_period(conn, period).status == "open":
        raise LedgerError(f"period {period} is open, it has no statements yet; close it first: credit close {period}")
    latest = {item.provider: item for item in all_statements(conn, period)}
    for item in latest.values():
        refuse_altered(item)
    return list(latest.values())


def _status(item: Statement, balance: Mapping[str, Any], payout: Payout | None) -> str:
    currency = balance["currency"]
    paid_minor = 0 if payout is None else payout.amount_minor
    if format_amount(paid_minor, currency) != balance["payable"]:
        raise IntegrityError(
            f"the statement of {item.provider} for {item.period} says {balance['payable']} {currency}, its payout"
            f" {format_amount(paid_minor, currency)}; run credit verify"
        )
    if payout is not None:
        return payout.status
    nothing = format_amount(0, currency)
    if balance["converted_out"] != nothing:
        return "converted"
    return "none" if balance["carried_forward"] == nothing else "carried"


def _by_output(conn: Connection, books_folder: Path, period: str) -> pl.DataFrame:
    columns = [pl.col("name").alias("output_id"), *OUTPUT_COLUMNS[1:]]
    parts = [rows.select(columns) for rows in scores(conn, books_folder, period)]
    if not parts:
        texts = dict.fromkeys(OUTPUT_COLUMNS[:3], pl.String())
        return pl.DataFrame(schema={**texts, **dict.fromkeys(MEASURES, pl.Float64()), "credit_micro": pl.Int64()})
    return pl.concat(parts).sort("output_id", "provider", "collection", maintain_order=True)


def heaviest_outputs(conn: Connection, books_folder: Path, period: str, most: int) -> pl.DataFrame:
    """Return the outputs of a period that distributed most credits, at most so many, the heaviest first.

    Columns: `output_id` (the name in the log), `day`, `credit_micro`, `groups` (the number with credit), and of the
    group with most of it `provider`, `collection` and `group_micro`. Only one book is in memory at a time.

    Raises:
        LedgerError, IntegrityError: as `attribution`.
    """
    credit, order = pl.col("credit_micro"), ["credit_micro", "provider", "collection"]
    first = [pl.col(name).first() for name in ("provider", "collection")]
    found = pl.DataFrame(schema=HEAVIEST_SCHEMA)
    for rows in scores(conn, books_folder, period):
        grouped = rows.sort(order, descending=[True, False, False]).group_by("name", "day", maintain_order=True)
        sums = grouped.agg(
            credit.sum(), (credit > 0).sum().cast(pl.Int64).alias("groups"), *first, credit.first().alias("group_micro")
        )
        found = pl.concat([found, sums.rename({"name": "output_id"})])
        found = found.sort(["credit_micro", "output_id"], descending=[True, False]).head(most)
    return found


def _add_rows(sums: dict[tuple[str, ...], _Sum], key: Key, rows: pl.DataFrame) -> None:
    credited = pl.col("output_id").filter(pl.col("credit_micro") > 0).n_unique()
    grouped = rows.group_by(key, maintain_order=True).agg(
        credited.alias("outputs"), *(pl.col(name).sum() for name in MEASURES)
    )
    for row in grouped.iter_rows():
        values, outputs, measures = row[: len(key)], row[len(key)], row[len(key) + 1 :]
        item = sums.setdefault(values, _Sum())
        item.outputs += outputs
        item.measures = [old + new for old, new in zip(item.measures, measures, strict=True)]


def _add_entries(sums: dict[tuple[str, ...], _Sum], key: Key, posted: Sequence[CreditRow]) -> None:
    for row in posted:
        values = {"provider": row.group.provider, "collection": row.group.collection, "day": row.day.isoformat()}
        sums.setdefault(tuple(values[name] for name in key), _Sum()).credit_micro += row.credit_micro


def _with_intervals(key: Key, frame: pl.DataFrame, bootstrap: ShareBootstrap, ranked: Collection[Key]) -> pl.DataFrame:
    intervals = bootstrap.intervals()
    found = [intervals.get(row, (0.0, 0.0)) for row in frame.select(key).iter_rows()]
    frame = frame.with_columns(
        pl.Series("share_low", [low for low, _ in found], dtype=pl.Float64),
        pl.Series("share_high", [high for _, high in found], dtype=pl.Float64),
    )
    if key != BY_PROVIDER:
        return frame
    ranks = bootstrap.ranks(ranked)
    places = [ranks.get((own,), (None, None)) for own in frame["provider"]]
    return frame.with_columns(
        pl.Series("rank_low", [low for low, _ in places], dtype=pl.Int64),
        pl.Series("rank_high", [high for _, high in places], dtype=pl.Int64),
    )


def _to_frame(key: Key, sums: Mapping[tuple[str, ...], _Sum], total: int) -> pl.DataFrame:
    ordered = sorted(sums.items())
    texts = [pl.Series(name, [item[0][place] for item in ordered], dtype=pl.String) for place, name in enumerate(key)]
    outputs = pl.Series("outputs", [item.outputs for _, item in ordered], dtype=pl.Int64)
    measures = [
        pl.Series(name, [item.measures[place] for _, item in ordered], dtype=pl.Float64)
        for place, name in enumerate(MEASURES)
    ]
    credited = pl.Series("credit_micro", [item.credit_micro for _, item in ordered], dtype=pl.Int64)
    shares = [item.credit_micro / total if total else 0.0 for _, item in ordered]
    return pl.DataFrame([*texts, outputs, *measures, credited, pl.Series("share", shares, dtype=pl.Float64)])
