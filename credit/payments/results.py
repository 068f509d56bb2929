"""Results of payouts, from files of the bank; each counts once.

A payout is paid or fails. Weeks later the bank can still return a paid one; a later file then says so. A CSV file is
somebody's own, and counts whole or not at all. A bank's file (`bank_files`) has the rest of an account in it as well:
what matches a payout by end-to-end id, amount and date is recorded, and what looks like ours and does not is reported.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import get_args

from sqlalchemy import Connection

from credit.accounting.amounts import format_amount, money_text, parse_amount
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
from credit.payments.bank_files import BankEntry, is_xml, read_bank_file
from credit.records import Place, Quarantined

COLUMNS = ("payout_id", "status", "reference", "reason", "value_date", "amount", "fee")
"""Columns of a results file; the first two are required."""

_REFERENCE = re.compile(r"(CR[0-9]+-[0-9a-f]{8})-([0-9]+)")
_LONGEST = 200
_OUTCOMES: Mapping[str, Outcome] = {outcome: outcome for outcome in get_args(Outcome)}


@dataclass(frozen=True, slots=True)
class ConfirmReport:
    """Numbers of payouts recorded as paid, failed and returned, and of results known to the ledger before.

    `unmatched` are results in a bank's file that name payouts of ours and do not match, with the reason; `foreign`
    counts those of other payments.
    """

    paid: int
    failed: int
    known: int
    returned: int = 0
    unmatched: tuple[str, ...] = ()
    foreign: int = 0


@dataclass(frozen=True, slots=True)
class _ResultRow:
    """A result in a file, checked without the ledger; `currency` is that of `amount` if the file names it."""

    place: Place | str
    payout_id: str
    outcome: Outcome
    reference: str
    reason: str
    value_date: str
    amount: str
    currency: str = ""
    fee: str = ""


@dataclass(slots=True)
class _NewResults:
    """Results of a file that the ledger does not have, in rounds: a payout can be paid and come back in one file."""

    items: dict[str, tuple[PayoutBatch, BatchedPayout]]
    fresh: dict[tuple[int, int], tuple[PayoutBatch, list[BankResult]]] = field(default_factory=dict)
    rounds: dict[int, int] = field(default_factory=dict)
    known: int = 0

    def add(self, of: PayoutBatch, item: BatchedPayout, result: BankResult) -> None:
        """Note a result, and let later ones follow it."""
        number = self.rounds[result.payout_id] = self.rounds.get(result.payout_id, 0) + 1
        self.fresh.setdefault((number, of.id), (of, []))[1].append(result)
        self.items[item.reference] = (of, replace(item, results=(*item.results, result)))


def confirm_payments(
    ledger: Ledger, path: Path, *, batch_number: int | None = None, now: datetime | None = None
) -> ConfirmReport:
    """Record the results in a file: CSV, or a bank's pain.002, camt.053 or camt.054.

    A CSV file has the columns payout_id, status, and optionally reference, reason, value_date, amount and fee.
    `payout_id` is the payout's id in the payment file; `status` is paid, failed, or, for paid money that came back,
    returned. `value_date` (YYYY-MM-DD) is the day on which the bank moved the money: the result takes effect then, and
    not on the day of the file. `amount` must be the payout's, less the `fee` that banks kept. The same result again
    changes nothing.

    Args:
        ledger: the ledger.
        path: the file.
        batch_number: refuse results of any other batch.
        now: when the ledger records it.

    Raises:
        InputError: a row of a CSV file has an unknown payout, one of another batch, or one for the second time; a
            result against the record; a return of unpaid money; a failure or return without a reason; a value date
            before the batch left or after today; another amount than the payout's; or personal data in a text. Then
            the ledger records nothing of the file. In a bank's file such a result is reported, and the others count.
        LedgerError: there is no batch with this number.
    """
    moment = now or datetime.now(UTC)
    entries = read_bank_file(path) if is_xml(path) else None
    rows = [] if entries is not None else list(_read(path))
    unmatched: list[str] = []
    foreign = 0
    with ledger.write() as conn:
        wanted = None if batch_number is None else batch(conn, batch_number)
        found = _NewResults(_items(conn))
        for row in rows:
            try:
                _take(conn, row, found, wanted, moment.date())
            except InputError as error:
                raise InputError(f"{error}; nothing of this file was recorded") from None
        for entry in entries or ():
            results = _rows_of(entry, found.items)
            if isinstance(results, str):
                unmatched.append(results)
                continue
            foreign += not results
            for row in results:
                try:
                    _take(conn, row, found, wanted, moment.date())
                except InputError as error:
                    unmatched.append(str(error))
        for _, (of, new) in sorted(found.fresh.items()):
            record_results(conn, of, new, now=moment)
    counts = Counter(result.outcome for _, new in found.fresh.values() for result in new)
    return ConfirmReport(counts["paid"], counts["failed"], found.known, counts["returned"], tuple(unmatched), foreign)


def _take(conn: Connection, row: _ResultRow, found: _NewResults, wanted: PayoutBatch | None, today: date) -> None:
    """Check a result against the ledger, and note it if it is new."""
    known = found.items.get(row.payout_id)
    if known is None:
        raise _refusal(row, f"there is no payout {row.payout_id!r} in any batch of this ledger")
    of, item = known
    if wanted is not None and of.id != wanted.id:
        raise _refusal(row, f"payout {row.payout_id} is in batch {of.id}, not in batch {wanted.id}")
    fee_minor = _fee(row, item)
    if _is_known(row, item):
        found.known += 1
        return
    _check_texts(conn, row, item)
    found.add(
        of,
        item,
        BankResult(item.payout.id, row.outcome, row.reference, row.reason, _value_on(row, of, today), fee_minor),
    )


def _rows_of(entry: BankEntry, items: Mapping[str, tuple[PayoutBatch, BatchedPayout]]) -> list[_ResultRow] | str:
    """Return the results of payouts in a result of a bank; none of other payments; or why a batch does not match."""

    def row(payout_id: str, amount: str, currency: str) -> _ResultRow:
        texts = (entry.reference, entry.reason, entry.value_date, amount, currency)
        return _ResultRow(entry.place, payout_id, entry.outcome, *texts)

    if entry.end_to_end:
        ours = _REFERENCE.fullmatch(entry.end_to_end)
        return [row(entry.end_to_end, entry.amount, entry.currency)] if ours else []
    own = [item for of, item in items.values() if of.reference == entry.block]
    # What the bank refused is in no debit; what came back was in one.
    booked = [item for item in own if not item.results or item.results[0].outcome == entry.outcome]
    currency = own[0].payout.currency if own else entry.currency
    total = money_text(sum(item.payout.amount_minor for item in booked), currency) if own else ""
    if own and entry.amount and f"{_plain(entry.amount, currency)} {entry.currency}" != total:
        return (
            f"{entry.place}: {entry.amount} {entry.currency} is not the {total} of the payouts in {entry.block} without"
            " refused ones; ask the bank for the bookings one by one"
        )
    return [row(item.reference, "", "") for item in booked]


def _plain(amount: str, currency: str) -> str:
    """Return a bank's decimal with the currency's digits; banks write 5 or 5.0 for 5.00."""
    try:
        return format_amount(parse_amount(_without_zeros(amount), currency), currency)
    except InvalidRequestError:
        return amount


def _without_zeros(amount: str) -> str:
    return amount.rstrip("0").rstrip(".") if "." in amount else amount


def _read(path: Path) -> Iterator[_ResultRow]:
    seen: dict[str, Place] = {}
    empty = True
    for row in read_csv(path, required=COLUMNS[:2]):
        empty = False
        if isinstance(row, Quarantined):
            raise InputError(f"{row.place}: {row.error}; nothing of this file was recorded")
        try:
            item = _row(row)
        except InputError as error:
            raise InputError(f"{error}; nothing of this file was recorded") from None
        if item.payout_id in seen:
            before = f"payout {item.payout_id} was given before, in line {seen[item.payout_id].line}"
            raise InputError(f"{item.place}: {before}; nothing of this file was recorded")
        seen[item.payout_id] = row.place
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
        fee=texts["fee"],
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
                raise _refusal(
                    row,
                    f"payout {row.payout_id} is recorded with another reference, {result.bank_reference}: ask the bank"
                    " if it was paid twice",
                )
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


def _fee(row: _ResultRow, item: BatchedPayout) -> int | None:
    """Return the fee that banks kept of a payment; refuse another amount than the payout's, less that fee.

    The ledger knows no payment in part: what a payee did not get is a fee, or the bank's mistake.
    """
    owed = item.payout
    if row.fee and (not row.amount or row.outcome != "paid"):
        raise _refusal(row, "a fee belongs to a payment, beside the amount that was paid")
    if not row.amount:
        return None
    if row.currency not in {"", owed.currency}:
        raise _refusal(row, f"payout {row.payout_id} left in {owed.currency}, not in {row.currency}")
    try:
        amount_minor = parse_amount(_without_zeros(row.amount), owed.currency)
        fee_minor = parse_amount(row.fee, owed.currency) if row.fee else 0
    except InvalidRequestError as error:
        raise _refusal(row, f"the amount {error}") from None
    if amount_minor + fee_minor != owed.amount_minor:
        left = money_text(owed.amount_minor, owed.currency)
        paid = f"{row.amount} and a fee of {row.fee}" if row.fee else row.amount
        remedy = "" if row.fee else "; if banks kept it as a fee, a column fee says so"
        raise _refusal(
            row, f"payout {row.payout_id} left with {left}, not {paid}; ask the bank for the difference{remedy}"
        )
    return fee_minor or None


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
    return InputError(f"{row.place}: {message}")
