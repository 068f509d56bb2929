"""Restatements, payment files and a bank's results, as rules of the state machine: what comes after a close."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule,
)
from sqlalchemy import Connection

from credit.ledger import (
    journal,
    payouts,
    remittances,
    statements,
    values,
    voids,
)
from credit.payments.export import ExportRequest, export_payments
from credit.payments.results import ConfirmReport, confirm_payments
from credit.pipeline.restate import Restatement, by_policy, restate
from credit.records import VoidTo
from tests.pipeline.plain_model import (
    Payout,
    Posted,
    RefusedError,
    month_name,
)
from tests.pipeline.two_ledgers import TwoLedgers

changes = st.fixed_dictionaries(
    {"measure": st.sampled_from(["support", "influence"])},
    optional={"basis": st.sampled_from(["output", "period"]), "negative": st.sampled_from(["zero", "net"])},
)
"""Of a policy, for a restatement."""


class AfterTheClose(TwoLedgers):
    """Rules about what a close has decided."""

    @precondition(lambda self: self.model.closes)
    @rule(data=st.data(), changes=changes)
    def restate(self, data: st.DataObject, changes: dict[str, str]) -> None:
        """What another policy would have paid is posted in the open month, and posted again it is nothing."""
        month = data.draw(st.sampled_from(sorted(self.model.closes)))
        self.now += timedelta(minutes=1)

        def act() -> list[Restatement]:
            args = (month_name(month), by_policy(changes), {"policy": changes})
            return [restate(self.books, ledger, *args, reason="a better one", now=self.now) for ledger in self.ledgers]

        before = self.read(lambda conn: statements.statements(conn, month_name(month)))
        try:
            credited, expected = self.model.restate(month, changes)
        except RefusedError:
            self.refused(act)
            return
        one, other = act()
        assert one == other
        assert {item.provider: item.restated_micro for item in one.credits if item.restated_micro} == credited
        moved = {(item.account, item.currency): item.adjustment_minor for item in one.money if item.adjustment_minor}
        assert moved == expected
        if one.txn_id is not None:
            self.model.posted[one.txn_id] = Posted("restatement", self.model.closed + 1, (month, expected))
        assert [item.txn_id for item in act()] == [None, None]
        assert self.read(lambda conn: statements.statements(conn, month_name(month))) == before

    @precondition(lambda self: any(item.status in {"pending", "failed"} for item in self.model.payouts))
    @rule(data=st.data())
    def export(self, data: st.DataObject) -> None:
        """What can leave does so once, in the same file from both ledgers; the same command writes it again."""
        waiting = [item for item in self.model.payouts if item.status in {"pending", "failed"}]
        one = data.draw(st.sampled_from(waiting))
        self.number += 1
        self.now += timedelta(minutes=1)
        outs = [self.books.data_dir / f"{self.number}-{place}.csv" for place in range(2)]
        asked = [
            ExportRequest(month_name(one.month), "csv", out, one.currency, retry=one.status == "failed") for out in outs
        ]
        expected = [(item.provider, item.amount) for item in self.model.export(one.month, one.currency, one.status)]
        reports = [export_payments(ledger, ask, now=self.now) for ledger, ask in zip(self.ledgers, asked, strict=True)]
        for report in reports:
            left = [] if report.again else [(item.provider, item.amount_minor) for item in report.payouts]
            assert left == sorted(expected)
        if expected:
            assert outs[0].read_bytes() == outs[1].read_bytes()
            heads = self.read(journal.chain_head)
            again = [replace(ask, retry=False) for ask in asked] if one.status == "failed" else asked
            for ledger, ask in zip(self.ledgers, again, strict=True):
                if any(
                    item.status == "pending" and item.provider not in self.model.held for item in self.model.payouts
                ):
                    continue
                assert export_payments(ledger, ask, now=self.now).again
            assert self.read(journal.chain_head) == heads

    @precondition(lambda self: any(item.status in {"exported", "paid"} for item in self.model.payouts))
    @rule(data=st.data(), outcome=st.sampled_from(["paid", "paid", "failed"]))
    def confirm(self, data: st.DataObject, outcome: str) -> None:
        """A result counts once, and another one for the same payout is refused; what was paid can come back, once."""
        one = data.draw(st.sampled_from([item for item in self.model.payouts if item.status in {"exported", "paid"}]))
        self.now += timedelta(minutes=1)
        came_back = one.status == "paid"
        name = self._left(one, "paid" if came_back else None).reference
        file = self.books.data_dir / "results.csv"

        def act(status: str) -> list[ConfirmReport]:
            file.write_text(f"payout_id,status,reason\n{name},{status},{'' if status == 'paid' else 'x'}\n")
            return [confirm_payments(ledger, file, now=self.now) for ledger in self.ledgers]

        status = "returned" if came_back else outcome
        self.refused(lambda: act("failed" if came_back else "returned"))
        counts = {name: int(name == status) for name in ("paid", "failed", "returned")}
        assert act(status) == [ConfirmReport(**counts, known=0)] * 2
        self.model.confirm(one, status)
        assert act(status) == [ConfirmReport(0, 0, 1)] * 2
        self.refused(lambda: act("paid" if status == "failed" else "failed"))

    @precondition(lambda self: any(item.status in {"pending", "failed"} for item in self.model.payouts))
    @rule(data=st.data(), goes_to=st.sampled_from(["provider", "house", "escrow"]))
    def void(self, data: st.DataObject, goes_to: VoidTo) -> None:
        """A payout that must never be paid goes elsewhere, with the tax and fee taken from it, and never leaves."""
        waiting = [item for item in self.model.payouts if item.status in {"pending", "failed"}]
        self.void_one(data.draw(st.sampled_from(waiting)), goes_to)

    def void_one(self, one: Payout, goes_to: VoidTo) -> None:
        key = (month_name(one.month), one.provider, one.currency)
        day = datetime.combine(values.first_day(month_name(self.model.closed + 1)), time(12), UTC)

        def act(conn: Connection, reason: str = "paid by cheque") -> journal.Posted:
            return voids.void_payout(conn, *key, reason=reason, goes_to=goes_to, now=day)

        self.post(act)
        self.model.void(one, goes_to)
        self.refused(lambda: self.write(lambda conn: act(conn, "another reason")))

    def remittable(self) -> list[tuple[remittances.Remitted, str, int]]:
        """The money of the house, and fees, by currency."""
        accounts: tuple[tuple[remittances.Remitted, str], ...] = (
            ("house", "money:payable:house"),
            ("fees", "money:fees"),
        )
        found = [(of, code, self.model.balances[key, code]) for of, key in accounts for code in ("EUR", "USD")]
        return [item for item in found if item[2] > 0]

    @precondition(lambda self: self.remittable())
    @rule(data=st.data(), percent=st.integers(1, 100))
    def remit(self, data: st.DataObject, percent: int) -> None:
        """Of the house's money and of fees a part leaves, or all; never more than is there."""
        self.remit_part(*data.draw(st.sampled_from(self.remittable())), percent)

    def remit_part(self, of: remittances.Remitted, currency: str, there: int, percent: int) -> None:
        amount = max(1, there * percent // 100)
        self.number += 1
        paid_on, reference = values.first_day(month_name(self.model.closed + 1)), f"r-{self.number}"

        def act(conn: Connection, minor: int) -> journal.Posted:
            what = {"paid_on": paid_on, "reference": reference, "now": self.now}
            return remittances.remit(conn, of, minor, currency, **what)

        self.refused(lambda: self.write(lambda conn: act(conn, there + 1)))
        self.post(lambda conn: act(conn, amount))
        self.model.remit(of, currency, amount)

    def _left(self, one: Payout, outcome: str | None) -> payouts.BatchedPayout:
        """Return a payout in the one batch in which it has this outcome, or (None) waits for one."""

        def ask(conn: Connection) -> list[payouts.BatchedPayout]:
            items = [item for batch in payouts.batches(conn) for item in payouts.batch_items(conn, batch)]
            key = (month_name(one.month), one.provider, one.currency)
            return [
                item
                for item in items
                if item.outcome == outcome and (item.payout.period, item.payout.provider, item.payout.currency) == key
            ]

        (found, other) = self.read(ask)
        assert found == other
        assert len(found) == 1
        return found[0]
