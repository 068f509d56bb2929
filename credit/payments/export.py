"""Export of payouts: each leaves in one payment file, once.

The ledger records the batch first; then the file is written. A run killed in between leaves a batch without a file, and
the same command writes it later, byte for byte, from the ledger. Every file has its batch in the ledger.
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
from credit.ledger.clock import notice_of_lead
from credit.ledger.database import Ledger
from credit.ledger.holds import HoldEvent, hold_on, holds
from credit.ledger.payee_accounts import RedFlag, accepted_flags, payer_ibans, record_acceptances, red_flags
from credit.ledger.payouts import (
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
from credit.payments.channels import CHANNELS
from credit.payments.channels.channel import Channel, Payer, PaymentFile, PaymentLine
from credit.records import WAITING_DAYS, PaymentFormat
from credit.storage import write_whole
from credit.text import counted


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A request for a payment file.

    Attributes:
        payer: for a file that names one.
        batch: write that batch's file again.
        waiting_days: days for which a changed account waits for its first payment.
        accept: providers with red flags that a person accepts, each with `NAME: reason`.
        out: the file; None records the batch alone, and its file is written another time.
    """

    period: str
    format: PaymentFormat
    out: Path | None
    currency: str | None = None
    payer: Payer | None = None
    retry: bool = False
    batch: int | None = None
    strict: bool = False
    dry_run: bool = False
    waiting_days: int = WAITING_DAYS
    accept: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The payouts that left in a batch, and the unpayable ones with the reason.

    `red_flags` are those of all payouts that could have left; one that holds has made its payout unpayable. `again` is
    true where the batch had left before. `batch` is None in a dry run, or when there was nothing to pay.
    """

    batch: PayoutBatch | None
    again: bool
    payouts: tuple[Payout, ...]
    unpayable: tuple[str, ...]
    notices: tuple[str, ...]
    red_flags: tuple[RedFlag, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """A batch before it is recorded: each payout with the version of its provider's details, and its line."""

    new: NewBatch
    currency: str
    payer: Payer | None
    items: tuple[tuple[Payout, int], ...]
    lines: tuple[PaymentLine, ...]
    unpayable: tuple[str, ...]
    notices: tuple[str, ...]
    red_flags: tuple[RedFlag, ...]


def export_payments(ledger: Ledger, request: ExportRequest, *, now: datetime | None = None) -> ExportReport:
    """Put every payable payout of a closed period into a new batch, and write its file.

    With nothing left to export, write again the last batch of this format without results. A payout on hold, or with
    details unfit for the file, is unpayable and stays as it was. So does one with a red flag that looks like fraud,
    until somebody accepts it (`credit.ledger.payee_accounts`); the ledger keeps the acceptance.

    Raises:
        InvalidRequestError: the channel does not carry the currency, the payer is missing, the day of a new batch is
            past, or an acceptance has no name.
        LedgerError: the period is not closed, another file has the name, or there is no red flag to accept.
        InputError: `strict`, and a payout is unpayable.
        IntegrityError: a batch cannot be written again as it was.
    """
    out = request.out
    if out is not None and not out.parent.is_dir():
        raise InvalidRequestError(f"the folder {out.parent} does not exist; create it, or name another --out")
    with ledger.read() if request.dry_run else ledger.write() as conn:
        report, content = export_in(conn, request, now or datetime.now(UTC))
    # After the commit: a batch without its file can be written again; a file without a batch would be paid twice.
    if content is not None and out is not None:
        write_whole(out, content)
    return report


def export_in(conn: Connection, request: ExportRequest, now: datetime) -> tuple[ExportReport, bytes | None]:
    """Record a batch as `export_payments` does; return its report, and the file to write once it is committed."""
    if request.batch is None:
        request = _checked(request)
    elif request.accept:
        raise InvalidRequestError(f"batch {request.batch} has left: leave out --accept, there is nothing to accept")
    _check_closed(conn, request.period)
    ahead = tuple(filter(None, [notice_of_lead(conn, now)]))
    if request.batch is not None:
        return _again(conn, request, batch(conn, request.batch), ExportReport(None, False, (), (), ahead))
    plan = _plan(conn, request, now, ahead)
    if request.strict and plan.unpayable:
        raise InputError(f"{plan.unpayable[0]}; nothing was exported (--strict)")
    if request.accept and not request.dry_run:
        record_acceptances(conn, [flag for flag in plan.red_flags if flag.accepted], now=now)
    payouts = tuple(item for item, _ in plan.items)
    report = ExportReport(None, False, payouts, plan.unpayable, plan.notices, plan.red_flags)
    if not plan.items:
        last = _unconfirmed(conn, request)
        if last is None or request.dry_run:
            return report, None
        return _again(conn, request, last, report)
    file = PaymentFile(plan.new.reference, plan.payer, plan.lines)
    content = CHANNELS[request.format].write(file)
    _check_free(request.out, content)  # before the batch is recorded: a taken name must not cost one
    if request.dry_run:
        return report, None
    made = record_batch(
        conn,
        plan.new,
        period=request.period,
        currency=plan.currency,
        format=request.format,
        payer_json=json.dumps(asdict(plan.payer), sort_keys=True) if plan.payer else "{}",
        items=plan.items,
        file_sha256=hashlib.sha256(content).hexdigest(),
        waiting_days=request.waiting_days,
    )
    return replace(report, batch=made), content


def _checked(request: ExportRequest) -> ExportRequest:
    """Return the request with the payer in the channel's form, and with the channel's currency if it has only one."""
    channel = CHANNELS[request.format]
    if request.currency is not None:
        _check_currency(channel, request.currency)
    elif len(channel.carriage.currencies) == 1:
        request = replace(request, currency=channel.carriage.currencies[0])
    if channel.checked_payer is not None:
        if request.payer is None:
            raise InvalidRequestError(
                f"a {channel.carriage.title} file needs the payer: --payer-name, --payer-iban, --payer-town, ..."
            )
        request = replace(request, payer=channel.checked_payer(request.payer))
    return request


def _check_currency(channel: Channel, currency: str) -> None:
    carriage = channel.carriage
    if not carriage.takes(currency):
        others = ", ".join(item.name for item in CHANNELS.values() if not item.carriage.currencies)
        raise InvalidRequestError(
            f"{carriage.title} carries {', '.join(carriage.currencies)} alone; export {currency} with another"
            f" --format: {others}"
        )


def _check_closed(conn: Connection, period: str) -> None:
    found = {item.id: item.status for item in periods(conn)}
    if found.get(period) != "closed":
        raise LedgerError(f"period {period} is not closed; payouts are decided at its close: credit close {period}")


def _plan(conn: Connection, request: ExportRequest, now: datetime, ahead: Sequence[str]) -> _Plan:
    channel = CHANNELS[request.format]
    candidates = payable_payouts(conn, request.period, retry=request.retry)
    currency, others = _currency(request, candidates)
    if currency:
        _check_currency(channel, currency)
    new = next_batch(conn, now)
    items: list[tuple[Payout, int]] = []
    lines: list[PaymentLine] = []
    unpayable: list[str] = []
    left = 0
    held = holds(conn)  # as of now: a hold placed after the close still stops the payment
    candidates = [item for item in candidates if item.currency == currency]
    flags = _red_flags(conn, request, candidates, now)
    for item in candidates:
        try:
            hold = hold_on(held, item.provider, currency)
            version, line = _payment(conn, item, hold, flags.get(item.provider, ()), new.reference)
            channel.check(line)
        except InputError as error:
            unpayable.append(str(error))
            continue
        # Checked first: an unpayable payout takes no place in the file.
        if len(items) == channel.most_payments:
            left += 1
            continue
        items.append((item, version))
        lines.append(line)
    payer, today = request.payer, new.exported_on
    if payer is not None:
        written_at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        payer = replace(payer, execute_on=payer.execute_on or today.isoformat(), written_at=written_at)
    if items and payer is not None and channel.checked_payer is not None:
        _check_day(payer, today)
    notices = [*ahead]
    notices += (
        [f"{counted(left, 'payout')} left for another batch: {request.format} takes {len(items)}"] if left else []
    )
    notices += [f"payouts in {other} are left: export them with --currency {other}" for other in others]
    notices += _notices_of_batches(conn, request.period)
    found = tuple(flag for own in flags.values() for flag in own)
    return _Plan(new, currency, payer, tuple(items), tuple(lines), tuple(unpayable), tuple(notices), found)


def _red_flags(
    conn: Connection, request: ExportRequest, candidates: Sequence[Payout], now: datetime
) -> dict[str, list[RedFlag]]:
    """Return the red flags of payees by provider, with the acceptances of the request."""
    payers = payer_ibans(conn) | ({request.payer.iban} if request.payer is not None else set())
    # Accepted ones without a payout too: the same command, repeated, finds them accepted.
    keys = {item.provider for item in candidates} | {key for key, _ in request.accept}
    flags = red_flags(conn, keys, payer_ibans=payers, waiting_days=request.waiting_days, now=now)
    return flags | {key: accepted_flags(flags, key, text) for key, text in request.accept}


def _payment(
    conn: Connection, item: Payout, hold: HoldEvent | None, flags: Sequence[RedFlag], batch_reference: str
) -> tuple[int, PaymentLine]:
    """Return the version of the payee's details, and the payment; InputError if it is held back or has no details."""
    if hold is not None:
        raise InputError(f"{item.provider}: on hold ({hold.reason})")
    holding = [flag.text for flag in flags if flag.holds]
    if holding:
        raise InputError(
            f"{item.provider}: {'; '.join(holding)}; call the provider on a number that you knew before, and release it"
            f' by name: --accept {item.provider} "NAME: reason"'
        )
    details = current_details(conn, item.provider)
    if details is None:
        raise InputError(f"{item.provider}: no payment details; add them: credit providers details {item.provider} ...")
    reference = payout_reference(batch_reference, item.id)
    return details[0], PaymentLine(reference, item.provider, item.period, item.currency, item.amount_minor, details[1])


def _check_day(payer: Payer, today: date) -> None:
    if date.fromisoformat(payer.execute_on) < today:
        raise InvalidRequestError(
            f"{payer.execute_on} is past, and banks refuse such files; name {today} or later: --execute-on DAY"
        )


def _currency(request: ExportRequest, candidates: Sequence[Payout]) -> tuple[str, list[str]]:
    found = sorted({item.currency for item in candidates})
    if request.currency is not None:
        return request.currency, [item for item in found if item != request.currency]
    if len(found) > 1:
        raise InvalidRequestError(f"payouts are in {', '.join(found)}; a file has one currency: --currency {found[0]}")
    return (found[0] if found else ""), []


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
    conn: Connection, request: ExportRequest, done: PayoutBatch, report: ExportReport
) -> tuple[ExportReport, bytes]:
    """Complete the report of a batch that left, and return its file, byte for byte as it was."""
    if done.period != request.period:
        raise InvalidRequestError(f"batch {done.id} is of {done.period}, not of {request.period}")
    was = json.loads(done.payer_json)
    if request.payer is not None and (request.payer.name, request.payer.iban) != (was.get("name"), was.get("iban")):
        raise InvalidRequestError(f"batch {done.id} left with another payer; leave out --payer-name and --payer-iban")
    items = batch_items(conn, done)
    lines = []
    for item in items:
        details = details_version(conn, item.details_id)
        if details is None:
            raise IntegrityError(
                f"batch {done.id} cannot be written again: the details of {item.payout.provider} have been erased;"
                f" look for the file that left, with the SHA-256 {done.file_sha256}. If the bank never got it, record"
                " its payouts as failed (credit pay confirm), and export them once there are new details: --retry"
            )
        one = item.payout
        lines.append(PaymentLine(item.reference, one.provider, one.period, one.currency, one.amount_minor, details))
    payer = Payer(**was) if was else None
    # With the details of that day; details changed since belong to other batches.
    content = CHANNELS[done.format].write(PaymentFile(done.reference, payer, lines))
    # The bank may have the first file: another one with the same reference could pay twice.
    if hashlib.sha256(content).hexdigest() != done.file_sha256:
        raise IntegrityError(f"batch {done.id} does not come out as the file that left; run credit verify")
    _check_free(request.out, content)
    payouts = tuple(item.payout for item in items)
    return replace(report, batch=done, again=True, payouts=payouts), content


def _check_free(out: Path | None, content: bytes) -> None:
    if out is not None and out.exists() and (not out.is_file() or out.read_bytes() != content):
        raise LedgerError(f"{out} exists and is something else; payment files are not overwritten: name another --out")
