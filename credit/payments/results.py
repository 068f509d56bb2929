"""Results of payouts, from files of the bank: a file counts as a whole, and once.

A payout is paid or fails. Weeks later the bank can still return a paid one; a later file then says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import get_args

from sqlalchemy import Connection

from credit.accounting.amounts import format_amount, parse_amount
from credit.errors import InputError, InvalidRequestError
from credit.ingest.files import Row, read_csv
from credit.ledger.database import Ledger
from credit.ledger.payouts import (
    BankResult,
    BatchedPayout,
    Outcome,
    PayoutBatch,
    batch,
    batch_items,
    batches,
    record_results,
)
from credit.ledger.personal_data import personal_field_in
from credit.ledger.values import is_storable
from credit.records import Place, Quarantined

COLUMNS = ("payout_id", "status", "reference", "reason", "value_date", "amount")
"""Columns of a results file; the first two are required."""

_REFERENCE = re.compile(r"(CR[0-9]+-[0-9a-f]{8})-([0-9]+)")
_LONGEST = 200
_OUTCOMES: Mapping[str, Outcome] = {outcome: outcome for outcome in get_args(Outcome)}


@dataclass(frozen=True, slots=True)
class ConfirmReport:
    """Numbers of payouts recorded as paid, failed and returned, and of results known to the ledger before."""

    paid: int
    failed: int
    known: int
    returned: int = 0


@dataclass(frozen=True, slots=True)
class _ResultRow:
    """A row of a results file, checked without the ledger."""

    place: Place
    payout_id: str
    outcome: Outcome
    reference: str
    reason: str
    value_date: str
    amount: str


def confirm_payments(
    ledger: Ledger, path: Path, *, batch_number: int | None = None, now: datetime | None = None
) -> ConfirmReport:
    """Record the results in a CSV file: payout_id, status, and optionally reference, reason, value_date and amount.

    `payout_id` is the payout's id in the payment file; `status` is paid, failed, or, for paid money that came back,
    returned. `value_date` (YYYY-MM-DD) is the day on which the bank moved the money: the result takes effect then, and
    not on the day of the file. `amount` must be the payout's. The same result again changes nothing.

    Args:
        ledger: the ledger.
        path: the file.
        batch_number: refuse results of any other batch.
        now: when the ledger records it.

    Raises:
        InputError: a row has an unknown payout, one of another batch, or one for the second time; a result against the
            record; a return of unpaid money; a failure or return without a reason; a value date before the batch left
            or after today; another amount than the payout's; or personal data in a text. Then the ledger records
            nothing of the file.
        LedgerError: there is no batch with this number.
    """
    rows = list(_read(path))
    moment = now or datetime.now(UTC)
    with ledger.write() as conn:
        wanted = None if batch_number is None else batch(conn, batch_number)
        items = _items(conn)
        fresh: dict[int, tuple[PayoutBatch, list[BankResult]]] = {}
        known = 0
        for row in rows:
            found = items.get(row.payout_id)
            if found is None:
                raise _refusal(row, f"there is no payout {row.payout_id!r} in any batch of this ledger")
            of, item = found
            if wanted is not None and of.id != wanted.id:
                raise _refusal(row, f"payout {row.payout_id} is in batch {of.id}, not in batch {wanted.id}")
            _check_amount(row, item)
            if _is_known(row, item):
                known += 1
                continue
            _check_texts(conn, row, item)
            # Collected first and recorded at the end: one bad row further down refuses the whole file.
            value_on = _value_on(row, of, moment.date())
            result = BankResult(item.payout.id, row.outcome, row.reference, row.reason, value_on)
            fresh.setdefault(of.id, (of, []))[1].append(result)
        for of, results in fresh.values():
            record_results(conn, of, results, now=moment)
    outcomes = [result.outcome for _, results in fresh.values() for result in results]
    return ConfirmReport(outcomes.count("paid"), outcomes.count("failed"), known, outcomes.count("returned"))


def _read(path: Path) -> Iterator[_ResultRow]:
    seen: dict[str, Place] = {}
    empty = True
    for row in read_csv(path, required=COLUMNS[:2]):
        empty = False
        if isinstance(row, Quarantined):
            raise InputError(f"{row.place}: {row.error}; nothing of this file was recorded")
        item = _row(row)
        if item.payout_id in seen:
            raise _refusal(item, f"payout {item.payout_id} was given before, in line {seen[item.payout_id].line}")
        seen[item.payout_id] = item.place
        yield item
    if empty:
        raise InputError(f"{path} holds no results; give it a line for each payout: {', '.join(COLUMNS)}")


def _row(row: Row) -> _ResultRow:
    texts = {name: str(row.record.get(name, "")).strip() for name in COLUMNS}
    unknown = sorted(row.record.keys() - set(COLUMNS))
    outcome = _OUTCOMES.get(texts["status"].lower())
    # Built before the checks, for their messages need its place; an unknown status is refused below.
    item = _ResultRow(
        row.place,
        texts["payout_id"],
        outcome or "failed",
        texts["reference"],
        texts["reason"],
        texts["value_date"],
        texts["amount"],
    )
    if unknown:
        raise _refusal(item, f"there is no column {unknown[0]!r}; columns are {', '.join(COLUMNS)}")
    if outcome is None:
        raise _refusal(item, f"the status {texts['status']!r} is neither paid nor failed, nor returned")
    if not _REFERENCE.fullmatch(item.payout_id):
        raise _refusal(item, f"{item.payout_id[:40]!r} is not a payout's id, as in CR1-0a1b2c3d-7")
    if item.outcome != "paid" and not item.reason:
        raise _refusal(item, f"a payout that {'failed' if item.outcome == 'failed' else 'came back'} needs a reason")
    return item


def _items(conn: Connection) -> dict[str, tuple[PayoutBatch, BatchedPayout]]:
    return {item.reference: (one, item) for one in batches(conn) for item in batch_items(conn, one)}


def _is_known(row: _ResultRow, item: BatchedPayout) -> bool:
    """Return True if the ledger has a result already; refuse one against the record, or one that cannot follow it."""
    for result in item.results:
        if result.outcome == row.outcome:
            if row.reference and result.bank_reference and row.reference != result.bank_reference:
                raise _refusal(row, f"payout {row.payout_id} is recorded with another reference")
            return True
    if row.outcome == "returned" and item.outcome != "paid":
        was = "has no result yet" if item.outcome is None else "is recorded as failed"
        raise _refusal(
            row,
            f"payout {row.payout_id} {was}: only money that was paid is returned; a payment that never arrived has"
            " failed",
        )
    if row.outcome != "returned" and item.outcome is not None:
        remedy = "; if the money came back, its status is returned" if item.outcome == "paid" else ""
        raise _refusal(row, f"payout {row.payout_id} is recorded as {item.outcome}, not as {row.outcome}{remedy}")
    return False


def _check_amount(row: _ResultRow, item: BatchedPayout) -> None:
    """Refuse another amount than the payout's: the ledger knows no payment in part."""
    owed = item.payout
    if not row.amount:
        return
    try:
        amount_minor = parse_amount(row.amount, owed.currency)
    except InvalidRequestError as error:
        raise _refusal(row, f"the amount {error}") from None
    if amount_minor != owed.amount_minor:
        left = f"{format_amount(owed.amount_minor, owed.currency)} {owed.currency}"
        raise _refusal(
            row, f"payout {row.payout_id} left with {left}, not {row.amount}; ask the bank for the difference"
        )


def _value_on(row: _ResultRow, of: PayoutBatch, today: date) -> date | None:
    """Return the value date of a result; it lies between the export of the batch and today."""
    if not row.value_date:
        return None
    try:
        day = datetime.strptime(row.value_date, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise _refusal(row, f"the value date {row.value_date[:40]!r} is not a day; write YYYY-MM-DD") from None
    if not of.created_at.date() <= day <= today:
        raise _refusal(row, f"the value date {day} is not between {of.created_at.date()}, when it left, and {today}")
    return day


def _check_texts(conn: Connection, row: _ResultRow, item: BatchedPayout) -> None:
    """Refuse texts unfit for a database, and personal data in them: the ledger keeps texts for ever."""
    for name, text in (("reference", row.reference), ("reason", row.reason)):
        if len(text) > _LONGEST or not is_storable(text):
            raise _refusal(row, f"the {name} is longer than {_LONGEST} characters, or cannot be stored")
        leak = personal_field_in(conn, item.payout.provider, text)
        if leak is not None:
            raise _refusal(row, f"the {name} repeats the provider's {leak}, which must stay erasable; take it out")


def _refusal(row: _ResultRow, message: str) -> InputError:
    return InputError(f"{row.place}: {message}; nothing of this file was recorded")
