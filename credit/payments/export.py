"""Which payouts leave in which file, exactly once.

A batch is recorded first and its file written after: a run that is killed in between leaves a batch without a file,
and the same command writes it then, byte for byte, because everything that is in it was recorded. There is never a
file that the ledger does not know of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

from sqlalchemy import Connection

from credit.errors import InputError, IntegrityError, InvalidRequestError, LedgerError
from credit.ledger.database import Ledger
from credit.ledger.holds import hold_on, holds
from credit.ledger.payouts import (
    BatchFormat,
    NewBatch,
    Payout,
    PayoutBatch,
    batch,
    batch_items,
    batches,
    next_batch,
    payable_payouts,
    payout_reference,
    record_batch,
)
from credit.ledger.periods import periods
from credit.ledger.personal_data import current_details, details_version
from credit.payments.channels.layouts import LAYOUTS, render_csv, write_file
from credit.payments.channels.payment import PaymentLine
from credit.payments.channels.sepa import CURRENCY, Payer, check_payer, check_reach, render_pain001, sepa_payment
from credit.text import counted

_MOST_SEPA = 100_000
"""Payments in a SEPA file; banks set lower limits of their own."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export. `payer` is needed for SEPA alone; `batch` asks for the file of a batch again."""

    period: str
    format: BatchFormat
    out: Path
    currency: str | None = None
    payer: Payer | None = None
    retry: bool = False
    batch: int | None = None
    strict: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What left. `again`: the batch had left before. `batch` is None when there was nothing to pay, or a dry run."""

    batch: PayoutBatch | None
    again: bool
    payouts: tuple[Payout, ...]
    set_aside: tuple[str, ...]
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A batch as it would leave, with what stays behind and why."""

    new: NewBatch
    currency: str
    payer_json: str
    items: tuple[tuple[Payout, int], ...]
    lines: tuple[PaymentLine, ...]
    set_aside: tuple[str, ...]
    notices: tuple[str, ...]


def export_payments(ledger: Ledger, request: ExportRequest, *, now: datetime | None = None) -> ExportReport:
    """Put every payout of a closed period that can leave into a new batch, and write its file.

    With nothing left to export, the file of the last batch of the same kind that is not confirmed is written again.
    A payout that is on hold, or whose details cannot stand in the file, is set aside, and stays as it was.

    Raises:
        InvalidRequestError: the request makes no sense: a currency that the format does not carry, no payer, a new
            batch that is to be paid on a day that is past.
        LedgerError: the period is not closed, or the file's name is taken by another file.
        InputError: `strict`, and a payout was set aside.
        IntegrityError: a batch cannot be written again as it was.
    """
    moment = now or datetime.now(UTC)
    if not request.out.parent.is_dir():
        raise InvalidRequestError(f"the folder {request.out.parent} does not exist; create it, or name another --out")
    if request.batch is None and request.format == "pain001":
        request = _with_checked_payer(request)
    with ledger.read() if request.dry_run else ledger.write() as conn:
        _check_closed(conn, request.period)
        if request.batch is not None:
            done = batch(conn, request.batch)
            return _again(conn, request, done, (), ())
        plan = _plan(conn, request, moment)
        if request.strict and plan.set_aside:
            raise InputError(f"{plan.set_aside[0]}; nothing was exported (--strict)")
        if not plan.items:
            last = _unconfirmed(conn, request)
            if last is None or request.dry_run:
                return ExportReport(None, False, (), plan.set_aside, plan.notices)
            return _again(conn, request, last, plan.set_aside, plan.notices)
        content = _render(request.format, plan.new.reference, plan.new.created_at, plan.payer_json, plan.lines)
        _check_free(request.out, content)
        payouts = tuple(item for item, _ in plan.items)
        if request.dry_run:
            return ExportReport(None, False, payouts, plan.set_aside, plan.notices)
        made = record_batch(
            conn,
            plan.new,
            period=request.period,
            currency=plan.currency,
            format=request.format,
            payer_json=plan.payer_json,
            items=plan.items,
            file_sha256=hashlib.sha256(content).hexdigest(),
        )
    write_file(request.out, content)
    return ExportReport(made, False, payouts, plan.set_aside, plan.notices)


def _with_checked_payer(request: ExportRequest) -> ExportRequest:
    if request.currency not in {None, CURRENCY}:
        raise InvalidRequestError(f"SEPA carries {CURRENCY} alone; export {request.currency} as csv, paypal or wise")
    if request.payer is None:
        raise InvalidRequestError("a SEPA file needs the payer: --payer-name, --payer-iban, --payer-town, ...")
    return replace(request, currency=CURRENCY, payer=check_payer(request.payer))


def _check_closed(conn: Connection, period: str) -> None:
    found = {item.id: item.status for item in periods(conn)}
    if found.get(period) != "closed":
        raise LedgerError(f"period {period} is not closed; payouts are decided at its close: credit close {period}")


def _plan(conn: Connection, request: ExportRequest, now: datetime) -> _Plan:
    candidates = payable_payouts(conn, request.period, retry=request.retry)
    currency, others = _currency(request, candidates)
    new = next_batch(conn, now)
    today = new.created_at.date()
    if request.payer is not None and not request.payer.execute_on:
        request = replace(request, payer=replace(request.payer, execute_on=today.isoformat()))
    held = holds(conn)
    items: list[tuple[Payout, int]] = []
    lines: list[PaymentLine] = []
    aside: list[str] = []
    left = 0
    for item in candidates:
        if item.currency != currency:
            continue
        hold = hold_on(held, item.provider, currency)
        details = current_details(conn, item.provider)
        if hold is not None:
            aside.append(f"{item.provider}: on hold ({hold.reason})")
        elif details is None:
            aside.append(f"{item.provider}: no payment details; add them: credit providers details {item.provider} ...")
        else:
            reference = payout_reference(new.reference, item.id)
            line = PaymentLine(reference, item.provider, item.period, currency, item.amount_minor, details[1])
            try:
                _check_line(request, line)
            except InputError as error:
                aside.append(str(error))
                continue
            if len(items) == _most(request.format):
                left += 1
                continue
            items.append((item, details[0]))
            lines.append(line)
    if items and request.format == "pain001":
        _check_day(request, today)
    notices = [f"{counted(left, 'payout')} left for another batch: {request.format} takes {len(items)}"] if left else []
    notices += [f"payouts in {other} are left: export them with --currency {other}" for other in others]
    notices += _notices_of_batches(conn, request.period)
    payer_json = json.dumps(asdict(request.payer), sort_keys=True) if request.payer else "{}"
    return _Plan(new, currency, payer_json, tuple(items), tuple(lines), tuple(aside), tuple(notices))


def _check_day(request: ExportRequest, today: date) -> None:
    if request.payer is not None and date.fromisoformat(request.payer.execute_on) < today:
        raise InvalidRequestError(
            f"{request.payer.execute_on} is past, and banks refuse such files; name {today} or later: --execute-on DAY"
        )


def _currency(request: ExportRequest, candidates: Sequence[Payout]) -> tuple[str, list[str]]:
    found = sorted({item.currency for item in candidates})
    if request.currency is not None:
        return request.currency, [item for item in found if item != request.currency]
    if len(found) > 1:
        raise InvalidRequestError(f"payouts are in {', '.join(found)}; a file has one currency: --currency {found[0]}")
    return (found[0] if found else ""), []


def _most(format: BatchFormat) -> int:  # noqa: A002 - as the option is called
    return _MOST_SEPA if format == "pain001" else LAYOUTS[format].most_lines


def _check_line(request: ExportRequest, line: PaymentLine) -> None:
    """Raise InputError if a line cannot stand in the file as it is."""
    if request.format == "pain001" and request.payer is not None:
        sepa_payment(line, date.fromisoformat(request.payer.execute_on))
        check_reach(line)
    else:
        LAYOUTS[request.format].cells(line)


def _notices_of_batches(conn: Connection, period: str) -> list[str]:
    notices = []
    for item in batches(conn, period):
        open_items = sum(one.outcome is None for one in batch_items(conn, item))
        if open_items:
            notices.append(
                f"batch {item.id} ({item.format}, {item.currency}) waits for {counted(open_items, 'result')};"
                f" its file again: credit pay export {period} --batch {item.id} --out FILE"
            )
    return notices


def _unconfirmed(conn: Connection, request: ExportRequest) -> PayoutBatch | None:
    same = [item for item in batches(conn, request.period) if item.format == request.format]
    if request.currency is not None:
        same = [item for item in same if item.currency == request.currency]
    waiting = [item for item in same if any(one.outcome is None for one in batch_items(conn, item))]
    return waiting[-1] if waiting else None


def _again(
    conn: Connection, request: ExportRequest, done: PayoutBatch, set_aside: tuple[str, ...], notices: tuple[str, ...]
) -> ExportReport:
    """Write the file of a batch again, byte for byte."""
    if done.period != request.period:
        raise InvalidRequestError(f"batch {done.id} is of {done.period}, not of {request.period}")
    if request.payer is not None:
        was = json.loads(done.payer_json)
        if (request.payer.name, request.payer.iban) != (was.get("name"), was.get("iban")):
            raise InvalidRequestError(
                f"batch {done.id} left with another payer; leave out --payer-name and --payer-iban"
            )
    items = batch_items(conn, done)
    lines = []
    for item in items:
        details = details_version(conn, item.details_id)
        if details is None:
            raise IntegrityError(
                f"batch {done.id} cannot be written again: the details of {item.payout.provider} have been erased;"
                f" its file had the SHA-256 {done.file_sha256}"
            )
        one = item.payout
        lines.append(PaymentLine(item.reference, one.provider, one.period, one.currency, one.amount_minor, details))
    content = _render(done.format, done.reference, done.created_at, done.payer_json, lines)
    if hashlib.sha256(content).hexdigest() != done.file_sha256:
        raise IntegrityError(f"batch {done.id} does not come out as the file that left; run credit verify")
    _check_free(request.out, content)
    write_file(request.out, content)
    return ExportReport(done, True, tuple(item.payout for item in items), set_aside, notices)


def _render(
    format: BatchFormat,  # noqa: A002 - as the option is called
    reference: str,
    created_at: datetime,
    payer_json: str,
    lines: Sequence[PaymentLine],
) -> bytes:
    if format == "pain001":
        return render_pain001(reference, created_at, Payer(**json.loads(payer_json)), lines)
    return render_csv(LAYOUTS[format], lines)


def _check_free(out: Path, content: bytes) -> None:
    if out.exists() and (not out.is_file() or out.read_bytes() != content):
        raise LedgerError(f"{out} exists and is something else; payment files are not overwritten: name another --out")
