"""Actions that can need a second person. `ACTIONS` is the one table of them; `credit.ledger.guards` guards their rows.

An action knows its arguments, as JSON for a proposal, and how it is done in a transaction. What it did is told twice:
as facts, of which a proposal keeps the digest, and as lines for people. Facts leave out moments and hashes of chains:
these differ from run to run.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from sqlalchemy import Connection, select

from credit.accounting.amounts import format_amount, money_text
from credit.accounting.fx import parse_rate
from credit.ledger.approvals import record_rule
from credit.ledger.corrections import adjust, pay_advance, transaction_in_words, undo
from credit.ledger.fx import RecordedRate, give_rate
from credit.ledger.guards import FX_RATE, SWITCH_OFF
from credit.ledger.holds import HoldEvent, release_hold
from credit.ledger.journal import Posted, chain_head, entries_of
from credit.ledger.payouts import batch_items
from credit.ledger.personal_data import Details
from credit.ledger.pools import Pool, add_pool
from credit.ledger.remittances import Remitted, remit
from credit.ledger.schema import ledger_txn
from credit.ledger.terms import Agreement, amend
from credit.ledger.voids import void_payout
from credit.payments.channels.channel import Payer
from credit.payments.details import change_details
from credit.payments.export import ExportReport, ExportRequest, export_in
from credit.pipeline.close import ClosePolicy, CloseReport, close_in
from credit.records import GivenRate, VoidTo
from credit.text import counted

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Session:
    """A transaction of the ledger, the folder of its score books, and the time."""

    conn: Connection
    books: Path | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Effect(Generic[R]):
    """The result of an action: for the caller, as facts to compare, and in lines for people."""

    result: R
    facts: object
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Action(ABC, Generic[R]):
    """An action with its arguments."""

    name: ClassVar[str]

    @abstractmethod
    def do(self, session: Session) -> Effect[R]:
        """Do it in the session's transaction."""

    def arguments(self) -> dict[str, Any]:
        """Return the arguments as JSON can hold them, without personal data."""
        said = json.loads(json.dumps(asdict(self), default=str))
        return {name: value for name, value in said.items() if value is not None}

    @classmethod
    def read(cls, arguments: Mapping[str, Any], personal: Mapping[str, str]) -> Self:
        """Return the action of the arguments of a proposal, and of the personal data in it."""
        return cls(**{**arguments, **({"values": personal} if personal else {})})

    def personal(self) -> tuple[str, Mapping[str, str]] | None:
        """Return the personal data in the arguments, with the key of its provider."""
        return None


def _posted(conn: Connection, after: int) -> list[str]:
    """Return the digest of each transaction after one: kind, period, day, entries, reason and details."""
    query = select(ledger_txn.c.input_sha256).where(ledger_txn.c.seq > after).order_by(ledger_txn.c.seq)
    return list(conn.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class AddPool(Action[Pool]):
    """Money to distribute for a period, in minor units."""

    name: ClassVar[str] = "pool"
    period: str
    currency: str
    gross_minor: int
    deductions_minor: int
    reference: str

    def do(self, session: Session) -> Effect[Pool]:
        """Add the pool."""
        seq, _ = chain_head(session.conn)
        pool = add_pool(
            session.conn,
            self.period,
            self.currency,
            gross_minor=self.gross_minor,
            deductions_minor=self.deductions_minor,
            reference=self.reference,
            now=session.now,
        )
        net = money_text(pool.net_minor, self.currency)
        line = f"pool {self.reference} of {self.period}: {net} to distribute"
        return Effect(pool, [asdict(self), _posted(session.conn, seq)], (line,))


@dataclass(frozen=True, slots=True)
class AmendTerms(Action[Agreement]):
    """New terms of a provider in a currency: the changed values by field of `Terms`, and the days as ISO 8601."""

    name: ClassVar[str] = "terms"
    provider: str
    currency: str
    changes: Mapping[str, int | str | None]
    valid_from: str
    valid_to: str | None = None
    supersede: bool = False

    def do(self, session: Session) -> Effect[Agreement]:
        """Record the version."""
        end = None if self.valid_to is None else date.fromisoformat(self.valid_to)
        agreed = amend(
            session.conn,
            self.provider,
            self.currency,
            self.changes,
            date.fromisoformat(self.valid_from),
            end,
            supersede=self.supersede,
            now=session.now,
        )
        changed = ", ".join(f"{name} {value}" for name, value in sorted(self.changes.items()))
        facts = [agreed.version, str(agreed.valid_from), str(agreed.valid_to), agreed.supersedes, asdict(agreed.terms)]
        return Effect(agreed, facts, (f"{agreed}: {changed or 'other days'}",))


@dataclass(frozen=True, slots=True)
class SetDetails(Action[Details]):
    """Changed payment details of a provider, by field of `Details`; they are personal data."""

    name: ClassVar[str] = "details"
    provider: str
    values: Mapping[str, str] = field(repr=False)

    def arguments(self) -> dict[str, Any]:
        """Return the provider and the names of the fields, never their values."""
        return {"provider": self.provider, "fields": sorted(self.values)}

    @classmethod
    def read(cls, arguments: Mapping[str, Any], personal: Mapping[str, str]) -> Self:
        """Return the action of a proposal's arguments and personal data."""
        return cls(arguments["provider"], personal)

    def personal(self) -> tuple[str, Mapping[str, str]]:
        """Return the provider's key with the values."""
        return self.provider, self.values

    def do(self, session: Session) -> Effect[Details]:
        """Record the details."""
        known = change_details(session.conn, self.provider, self.values, now=session.now)
        names = ", ".join(name.replace("_", " ") for name in sorted(self.values))
        return Effect(known, asdict(known), (f"payment details of {self.provider}: {names}",))


@dataclass(frozen=True, slots=True)
class Adjust(Action[Posted]):
    """A correction of the money owed to a provider, in minor units."""

    name: ClassVar[str] = "adjustment"
    provider: str
    amount_minor: int
    currency: str
    period: str
    reason: str
    cites: int | None = None
    key: str | None = None
    from_escrow: bool = False

    def do(self, session: Session) -> Effect[Posted]:
        """Post the adjustment."""
        seq, _ = chain_head(session.conn)
        done = adjust(
            session.conn,
            self.provider,
            self.amount_minor,
            self.currency,
            period=self.period,
            reason=self.reason,
            cites=self.cites,
            key=self.key,
            from_escrow=self.from_escrow,
            now=session.now,
        )
        amount = money_text(self.amount_minor, self.currency)
        source = " out of escrow" if self.from_escrow else ""
        line = f"adjustment of {self.provider} by {amount}{source} in {self.period}: {self.reason}"
        return Effect(done, _posted(session.conn, seq), (line,))


@dataclass(frozen=True, slots=True)
class PayAdvance(Action[Posted]):
    """An advance paid to a provider, in minor units; the day as ISO 8601."""

    name: ClassVar[str] = "advance"
    provider: str
    amount_minor: int
    currency: str
    paid_on: str
    reference: str

    def do(self, session: Session) -> Effect[Posted]:
        """Post the advance."""
        seq, _ = chain_head(session.conn)
        done = pay_advance(
            session.conn,
            self.provider,
            self.amount_minor,
            self.currency,
            paid_on=date.fromisoformat(self.paid_on),
            reference=self.reference,
            now=session.now,
        )
        amount = money_text(self.amount_minor, self.currency)
        line = f"advance of {amount} to {self.provider}, paid on {self.paid_on}: {self.reference}"
        return Effect(done, _posted(session.conn, seq), (line,))


@dataclass(frozen=True, slots=True)
class Remit(Action[Posted]):
    """A payment of withheld tax, of fees or of the house's money, in minor units; the day as ISO 8601."""

    name: ClassVar[str] = "remittance"
    of: Remitted
    amount_minor: int
    currency: str
    paid_on: str
    reference: str
    through: str | None = None
    provider: str | None = None

    def do(self, session: Session) -> Effect[Posted]:
        """Post the remittance."""
        seq, _ = chain_head(session.conn)
        done = remit(
            session.conn,
            self.of,
            self.amount_minor,
            self.currency,
            paid_on=date.fromisoformat(self.paid_on),
            reference=self.reference,
            through=self.through,
            provider_key=self.provider,
            now=session.now,
        )
        amount = money_text(self.amount_minor, self.currency)
        line = f"remittance of {self.of}, {amount}, paid on {self.paid_on}: {self.reference}"
        return Effect(done, _posted(session.conn, seq), (line,))


@dataclass(frozen=True, slots=True)
class Reverse(Action[Posted]):
    """The reversal of a transaction."""

    name: ClassVar[str] = "reversal"
    txn_id: int
    reason: str

    def do(self, session: Session) -> Effect[Posted]:
        """Post the reversal."""
        seq, _ = chain_head(session.conn)
        done = undo(session.conn, self.txn_id, reason=self.reason, now=session.now)
        what = transaction_in_words(session.conn, self.txn_id)
        line = f"reversal of transaction {self.txn_id} ({what}): {self.reason}"
        return Effect(done, _posted(session.conn, seq), (line,))


@dataclass(frozen=True, slots=True)
class Close(Action[CloseReport]):
    """The close of a period by a policy."""

    name: ClassVar[str] = "close"
    period: str
    policy: ClosePolicy

    @classmethod
    def read(cls, arguments: Mapping[str, Any], personal: Mapping[str, str]) -> Self:
        """Return the action of a proposal's arguments."""
        return cls(arguments["period"], ClosePolicy(**arguments["policy"]))

    def do(self, session: Session) -> Effect[CloseReport]:
        """Close the period."""
        seq, _ = chain_head(session.conn)
        report = close_in(session.conn, self.period, self.policy, session.books, session.now)
        # Text for what JSON has no form for: the report is compared, never read back.
        said = json.loads(json.dumps(asdict(report), default=str))
        return Effect(report, [said, _posted(session.conn, seq)], tuple(_close_lines(report)))


def _close_lines(report: CloseReport) -> list[str]:
    lines = [f"close of {report.period}: {counted(report.statements, 'statement')}"]
    for currency in sorted({fall.currency for fall in report.waterfalls}):
        falls = [fall for fall in report.waterfalls if fall.currency == currency]
        paid, carried = sum(fall.payable_minor for fall in falls), sum(fall.carried_forward_minor for fall in falls)
        payees = counted(sum(fall.payable_minor > 0 for fall in falls), "provider")
        lines.append(
            f"{money_text(paid, currency)} payable to {payees}, {format_amount(carried, currency)} carried forward"
        )
    return lines


@dataclass(frozen=True, slots=True)
class ExportPayments(Action[ExportReport]):
    """A batch of the payouts of a period. Its file is written afterwards, from the ledger: see `export_payments`."""

    name: ClassVar[str] = "payment-export"
    request: ExportRequest

    def arguments(self) -> dict[str, Any]:
        """Return the request without the place of the file."""
        asked = {name: value for name, value in asdict(self.request).items() if value is not None and name != "out"}
        return {"period": self.request.period, "request": asked}

    @classmethod
    def read(cls, arguments: Mapping[str, Any], personal: Mapping[str, str]) -> Self:
        """Return the action of a proposal's arguments."""
        asked = dict(arguments["request"])
        payer = Payer(**asked.pop("payer")) if "payer" in asked else None
        accept = tuple((key, words) for key, words in asked.pop("accept"))
        return cls(ExportRequest(**asked, out=None, payer=payer, accept=accept))

    def do(self, session: Session) -> Effect[ExportReport]:
        """Record the batch."""
        report, _ = export_in(session.conn, self.request, session.now)
        made = report.batch
        if made is None:
            return Effect(report, [], ("nothing to export",))
        items = batch_items(session.conn, made)
        # Not the batch's number, reference, day and file: they follow from the moment of the export.
        paid = [(one.payout.id, one.payout.provider, one.payout.amount_minor, one.details_id) for one in items]
        facts = [made.period, made.currency, made.format, paid, self.arguments()]
        amount = money_text(made.amount_minor, made.currency)
        line = f"{made.format} payment of {counted(made.payout_count, 'payout')} of {made.period}, {amount}"
        return Effect(report, facts, (line, *(f"unpayable: {reason}" for reason in report.unpayable)))


@dataclass(frozen=True, slots=True)
class VoidPayout(Action[Posted]):
    """A payout that must never be paid, and where its money goes."""

    name: ClassVar[str] = "void"
    period: str
    provider: str
    currency: str
    reason: str
    goes_to: VoidTo = "provider"

    def do(self, session: Session) -> Effect[Posted]:
        """Void the payout."""
        done = void_payout(
            session.conn,
            self.period,
            self.provider,
            self.currency,
            reason=self.reason,
            goes_to=self.goes_to,
            now=session.now,
        )
        # Not the day of the void, which follows from the moment: an approval can be given on another day.
        line = f"void of the payout of {self.provider} for {self.period} in {self.currency}, to the {self.goes_to}"
        facts = [asdict(self), [asdict(entry) for entry in entries_of(session.conn, done.txn_id)]]
        return Effect(done, facts, (f"{line}: {self.reason}",))


@dataclass(frozen=True, slots=True)
class ReleaseHold(Action[HoldEvent]):
    """The release of a hold on a provider, in a currency or all, or on a collection."""

    name: ClassVar[str] = "hold-release"
    provider: str
    reason: str
    currency: str | None = None
    collection: str | None = None

    def do(self, session: Session) -> Effect[HoldEvent]:
        """Record the release."""
        done = release_hold(
            session.conn, self.provider, self.currency, self.reason, collection=self.collection, now=session.now
        )
        what = f"collection {self.collection}" if self.collection else self.currency or "all currencies"
        return Effect(done, [asdict(self)], (f"release of the hold on {self.provider} ({what}): {self.reason}",))


@dataclass(frozen=True, slots=True)
class GiveRate(Action[RecordedRate]):
    """An exchange rate of a day: one unit of `base` cost `rate` units of `quote`; day as ISO 8601, rate as decimal."""

    name: ClassVar[str] = FX_RATE
    base: str
    quote: str
    on: str
    rate: str
    source: str
    supersede: bool = False

    def do(self, session: Session) -> Effect[RecordedRate]:
        """Record the rate."""
        given = GivenRate(self.base, self.quote, date.fromisoformat(self.on), parse_rate(self.rate), self.source)
        done = give_rate(session.conn, given, supersede=self.supersede, now=session.now)
        return Effect(done, [asdict(self), done.version], (f"exchange rate: {given}",))


@dataclass(frozen=True, slots=True)
class SwitchOff(Action[None]):
    """The end of a requirement: the action needs no second person any more."""

    name: ClassVar[str] = SWITCH_OFF
    action: str

    def do(self, session: Session) -> Effect[None]:
        """Record that the action needs no approval."""
        record_rule(session.conn, self.action, required=False, now=session.now)
        return Effect(None, [self.action], (f"{self.action} needs no approval any more",))


ACTIONS: Mapping[str, type[Action[Any]]] = {
    item.name: item
    for item in (
        AddPool,
        AmendTerms,
        SetDetails,
        Adjust,
        PayAdvance,
        Remit,
        Reverse,
        Close,
        ExportPayments,
        VoidPayout,
        ReleaseHold,
        GiveRate,
        SwitchOff,
    )
}
"""Every action by its name."""
