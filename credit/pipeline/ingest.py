"""Files of providers and rates → the ledger. Bad records are quarantined by file and line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from credit.accounting.amounts import currency_digits, parse_amount
from credit.accounting.fx import parse_rate
from credit.errors import CreditError, InputError, LedgerError
from credit.ingest.files import Parsed, ReadResult
from credit.ingest.providers import ProviderRow, read_providers
from credit.ingest.quarantine import QuarantineFile, QuarantineSummary
from credit.ingest.rates import RateRow, read_rates
from credit.ledger.approvals import required_actions
from credit.ledger.fx import give_rate, recorded_rates
from credit.ledger.guards import FX_RATE
from credit.ledger.providers import add_provider
from credit.ledger.terms import agree, agreement_on, first_free_day
from credit.pipeline.workspace import Workspace
from credit.records import GivenRate, Quarantined, Terms
from credit.storage import sha256_file

Row = TypeVar("Row")


@dataclass(slots=True)
class IngestReport:
    """Outcome of a file.

    Attributes:
        file: its path.
        accepted: records with something new.
        duplicates: records already in the ledger.
        told: those of them that tell of a call under another id, as another logger or span does.
        lookalikes: accepted outputs that another log may tell of too: the same model and text, seconds apart.
        skipped: sound records that are no outputs, such as failed calls, by reason.
        read: all finished records, in a file of outputs: accepted, duplicates, skipped and quarantined.
        quarantined: bad records.
        is_unchanged: the file is as an earlier run read it, and was not read again.
        unfinished: records at the end of a file that is still being written; they wait for the next run.
        quarantined_before: those of them that an earlier run quarantined for the same reason.
        quarantine_file: place of the bad records.
        problems: reasons of the newly quarantined records, each with its first record, and each call logged twice.
        doubled: calls that turned out to be logged twice.
        notices: remarks, such as unused fields.
    """

    file: str
    accepted: int = 0
    duplicates: int = 0
    told: int = 0
    lookalikes: int = 0
    read: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    is_unchanged: bool = False
    unfinished: int = 0
    quarantined: int = 0
    quarantined_before: int = 0
    quarantine_file: Path | None = None
    problems: tuple[str, ...] = ()
    doubled: int = 0
    notices: tuple[str, ...] = ()

    @property
    def quarantined_now(self) -> int:
        """Records that this run quarantined, and no earlier one for the same reason."""
        return self.quarantined - self.quarantined_before

    @property
    def is_old(self) -> bool:
        """True if an earlier run has read the file, and it brings nothing new."""
        return not self.accepted and not self.quarantined_now and self.duplicates + self.quarantined_before > 0


def import_providers(workspace: Workspace, path: Path, *, strict: bool = False) -> IngestReport:
    """Add the providers of a CSV file, or rename known ones, in one transaction.

    A provider's first minimum payout holds from the beginning, a changed one from today on.

    Raises:
        InputError: the file as a whole cannot be used, or `strict` and a row is bad.
    """
    return _import(workspace, path, read_providers(path), _import_provider, strict)


def import_rates(workspace: Workspace, path: Path, *, supersede: bool = False, strict: bool = False) -> IngestReport:
    """Record the exchange rates of a CSV file in one transaction; `supersede` replaces earlier ones.

    Raises:
        InputError: the file as a whole cannot be used, or `strict` and a row is bad.
        LedgerError: each rate needs the approval of a second person.
    """
    with workspace.open() as ledger, ledger.read() as conn:
        if FX_RATE in required_actions(conn):
            raise LedgerError("rates need the approval of a second person; propose each by itself: credit fx add")

    def add(conn: Connection, row: RateRow) -> bool:
        for code in (row.base, row.quote):
            currency_digits(code)  # refuses what is no currency
        given = GivenRate(row.base, row.quote, row.on, parse_rate(row.rate), row.source)
        now = datetime.now(UTC)
        known = recorded_rates(conn, row.base, row.quote, since=row.on, until=row.on)
        return give_rate(conn, given, supersede=supersede, now=now) not in known

    return _import(workspace, path, read_rates(path), add, strict)


def _import(
    workspace: Workspace,
    path: Path,
    result: ReadResult[Parsed[Row]],
    add: Callable[[Connection, Row], bool],
    strict: bool,
) -> IngestReport:
    """Add the records of a file in one transaction; `add` returns True if it changed anything."""
    report = IngestReport(str(path), notices=result.notices)
    bad: list[Quarantined] = list(result.quarantined)
    problems = QuarantineSummary()
    with (
        workspace.open() as ledger,
        QuarantineFile(workspace.quarantine, path, lambda: sha256_file(path)) as quarantine,
        ledger.write() as conn,
    ):
        for parsed in result.records:
            try:
                changed = add(conn, parsed.record)
            except CreditError as error:
                bad.append(parsed.quarantined(str(error)))
                continue
            report.accepted += changed
            report.duplicates += not changed
        for item in sorted(bad, key=lambda item: item.place.line):
            if strict:
                raise InputError(f"{item}; nothing of this file was imported (--strict)")
            if quarantine.add(item):
                problems.add(item)
    report.quarantined, report.quarantined_before = quarantine.count, quarantine.before
    report.quarantine_file = quarantine.path if bad else None
    report.problems = problems.lines()
    return report


def _import_provider(conn: Connection, row: ProviderRow) -> bool:
    minimum = None
    if row.currency is not None and row.minimum_payout is not None:
        minimum = parse_amount(str(row.minimum_payout), row.currency)
    now = datetime.now(UTC)
    changed = add_provider(conn, row.provider, now=now) != "unchanged"
    if row.currency is not None and minimum is not None:
        changed = agree_minimum(conn, row.provider.key, row.currency, minimum) or changed
    return changed


def agree_minimum(conn: Connection, key: str, currency: str, minimum_minor: int) -> bool:
    """Agree a minimum payout in minor units, from today on; return True if anything changed.

    A provider's first agreement holds from the first day of the first open period.
    """
    now = datetime.now(UTC)
    current = agreement_on(conn, key, currency, now.date())
    if current is not None and current.terms.minimum_payout_minor == minimum_minor:
        return False
    begin = first_free_day(conn) if current is None else now.date()
    terms = replace(current.terms if current else Terms(), minimum_payout_minor=minimum_minor)
    end = None if current is None else current.valid_to
    agree(
        conn, key, currency, terms, begin, end, supersede=current is not None and begin == current.valid_from, now=now
    )
    return True
