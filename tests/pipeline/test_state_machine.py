"""Every command of the accounting in any order, on SQLite and PostgreSQL at once, against a plain model."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, text

from credit.accounting.amounts import parse_amount
from credit.accounting.statement_lines import STATEMENT_LINES
from credit.ledger import balances, clock, corrections, fx, holds, journal, payouts, pools, statements, terms, values
from credit.ledger.accounts import AccountKind
from credit.ledger.database import Ledger
from credit.pipeline.close import ClosePolicy, close_period
from credit.pipeline.explain_payout import explain_payout
from credit.records import CREDIT, GivenRate, Rate, Terms, VoidTo
from tests.pipeline.after_the_close import AfterTheClose
from tests.pipeline.from_log_to_credits import FromLogToCredits, influence, micro, paid
from tests.pipeline.plain_credits import Paid
from tests.pipeline.plain_model import PROVIDERS, Agreed, Pool, Posted, RefusedError, month_name

provider = st.sampled_from(PROVIDERS)
currency = st.sampled_from(["EUR", "USD"])
ahead = st.sampled_from([0, 0, 0, 1, 2])
ppm = st.sampled_from([0, 1, 333_333, 500_000, 999_999, 1_000_000, 1_000_000])
outputs = st.lists(st.tuples(micro, influence, paid), min_size=1, max_size=2)
policy = st.sampled_from(["return", "redistribute", "escrow"])
amount = st.one_of(st.integers(1, 30), st.integers(1_000, 10**6))


coefficient = st.sampled_from([1, 4_999, 5_000, 10_000, 10_842, 19_999])
"""Of dollars for a euro, in ten thousandths."""


def _agreed(**values: Any) -> Agreed:
    taken = {"minimum": 0, "withholding": 0, "fee": 0} if values["pay_in"] else {}
    return Agreed(**{**values, "months": values["months"] if values["reserve"] else 0, **taken})


agreed = st.builds(
    _agreed,
    rate=ppm,
    minimum=st.sampled_from([0, 0, 500, 10**6]),
    reserve=st.sampled_from([0, 1, 100_000, 333_333]),
    months=st.integers(1, 2),
    recoupment=ppm,
    withholding=st.sampled_from([0, 0, 157_777, 1_000_000]),
    fee=st.sampled_from([25, 0]),
    pay_in=st.sampled_from(["", "USD"]),
)


class Accounting(FromLogToCredits, AfterTheClose):
    """Two ledgers and a model that are told the same."""

    @initialize(data=st.data())
    def start_with_terms(self, data: st.DataObject) -> None:
        for key in ((name, code) for name in PROVIDERS for code in ("EUR", "USD")):
            if data.draw(st.integers(0, 3)):
                self.agree_on(key, data.draw(agreed))
            if data.draw(st.booleans()):
                self.advance(0, *key, data.draw(amount))

    @rule(
        outputs=outputs,
        nets=st.tuples(amount, amount),
        house=policy,
        coefficient=coefficient,
        gone=st.sampled_from(["", "", "", "provider", "house", "escrow"]),
        percent=st.sampled_from([0, 0, 37, 100]),
    )
    def settle_a_month(
        self,
        outputs: list[tuple[list[int], list[int], Paid]],
        nets: tuple[int, int],
        house: str,
        coefficient: int,
        gone: VoidTo | Literal[""],
        percent: int,
    ) -> None:
        """Credits, a pool in each currency, a rate and the close, if no earlier command stands in the way.

        Afterwards a payout may be voided, and some of the house's money or of the fees leave.
        """
        for item in outputs:
            self.earn(0, *item)
        self.give_rate(0, coefficient)
        for net, code in zip(nets, ("EUR", "USD"), strict=True):
            self.pool(0, net, code)
        self.close(house, 0, leave=True)
        waiting = [item for item in self.model.payouts if item.status in {"pending", "failed"}]
        if gone and waiting:
            self.void_one(waiting[-1], gone)
        for item in self.remittable() if percent else ():
            self.remit_part(*item, percent)

    @rule(ahead=ahead, coefficient=coefficient)
    def give_rate(self, ahead: int, coefficient: int) -> None:
        month = self.model.closed + 1 + ahead
        given = GivenRate("EUR", "USD", values.last_day(month_name(month)), Rate(coefficient, 4), "a bank")
        for _ in range(2):
            self.write(lambda conn: fx.give_rate(conn, given, supersede=True, now=self.now))
        self.model.rates[month] = given.rate.value

    @rule(ahead=ahead, net=st.one_of(st.just(0), amount), currency=currency)
    def pool(self, ahead: int, net: int, currency: str) -> None:
        month = self.model.closed + 1 + ahead
        self.number += 1
        reference = f"pool {self.number}"
        args = (month_name(month), currency, net, 0, reference, self.now)
        first = self.write(lambda conn: pools.add_pool(conn, *args))
        assert self.write(lambda conn: pools.add_pool(conn, *args)) == first
        item = Pool(net, currency, reference)
        self.model.add_pool(month, item)
        if first.txn_id is not None:
            self.model.posted[first.txn_id] = Posted("pool", month, item)

    @rule(ahead=ahead, provider=provider, currency=currency, amount=amount, sign=st.sampled_from([1, -1]))
    def adjust(self, ahead: int, provider: str, currency: str, amount: int, sign: int) -> None:
        month = self.model.closed + 1 + ahead
        self.number += 1
        what = {"period": month_name(month), "reason": f"reason {self.number}", "now": self.now}
        number = self.post(lambda conn: corrections.adjust(conn, provider, sign * amount, currency, **what))
        self.model.adjust(month, provider, currency, sign * amount)
        self.model.posted[number] = Posted("adjustment", month, (provider, currency, sign * amount))

    @rule(ahead=ahead, provider=provider, currency=currency, amount=amount)
    def advance(self, ahead: int, provider: str, currency: str, amount: int) -> None:
        month = self.model.closed + 1 + ahead
        self.number += 1
        what = {"paid_on": values.first_day(month_name(month)), "reference": f"a-{self.number}", "now": self.now}
        number = self.post(lambda conn: corrections.pay_advance(conn, provider, amount, currency, **what))
        self.model.advance(month, provider, currency, amount)
        self.model.posted[number] = Posted("advance", month, (provider, currency, amount))
        key = (provider, currency)
        self.advanced[key] = self.advanced.get(key, 0) + amount

    @rule(key=st.tuples(provider, currency), agreed=agreed)
    def agree_on(self, key: tuple[str, str], agreed: Agreed) -> None:
        agreed = agreed if key[1] == "EUR" else replace(agreed, pay_in="")
        item = Terms(
            agreed.rate,
            agreed.minimum,
            agreed.reserve,
            agreed.months,
            agreed.recoupment,
            agreed.withholding,
            agreed.fee,
            pay_in=agreed.pay_in,
        )
        begin = values.first_day(month_name(self.model.closed + 1))
        for _ in range(2):
            self.write(lambda conn: terms.agree(conn, *key, item, begin, supersede=True, now=self.now))
        self.model.terms[key] = agreed

    @rule(provider=provider)
    def hold_or_release(self, provider: str) -> None:
        act = holds.release_hold if provider in self.model.held else holds.place_hold
        for _ in range(2):
            self.write(lambda conn: act(conn, provider, None, "a reason", now=self.now))
        if self.model.held.pop(provider, None) is None:
            self.model.held[provider] = "a reason"

    @rule(collection=st.sampled_from(["default", "x"]))
    def hold_or_release_a_collection(self, collection: str) -> None:
        """Of ann, who has two; one that was never credited is no collection yet."""
        line = f"ann/{collection}"
        known = text("SELECT count(*) FROM account WHERE key = :key")
        act = holds.release_hold if line in self.model.held_lines else holds.place_hold

        def hold(conn: Connection) -> holds.HoldEvent:
            return act(conn, "ann", None, "a dispute", collection=collection, now=self.now)

        if self.read(lambda conn: conn.execute(known, {"key": f"credits:earned:{line}"}).scalar()) == [0, 0]:
            self.refused(lambda: self.write(hold))
            return
        for _ in range(2):
            self.write(hold)
        self.model.held_lines ^= {line}

    @precondition(lambda self: any(not item.reversed for item in self.model.posted.values()))
    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        """What is reversed is as if it had never been; what others build on is not reversed."""
        known = [number for number, item in self.model.posted.items() if not item.reversed]
        number = data.draw(st.sampled_from(known))

        def undo(conn: Connection) -> journal.Posted:
            return corrections.undo(conn, number, reason="a mistake", now=self.now)

        try:
            self.model.reverse(number)
        except RefusedError:
            self.refused(lambda: self.write(undo))
        else:
            self.model.posted[self.post(undo)] = Posted("reversal", self.model.closed + 1, number)

    @rule(house=policy, ahead=st.sampled_from([0, 0, 0, 1]), leave=st.booleans())
    def close(self, house: str, ahead: int, leave: bool) -> None:
        """The next open period closes with the model's lines; one out of order, or without a pool, does not."""
        begun = self.model.opened.union(output.occurred for output in self.model.outputs)
        open_months = sorted(month for month in begun if month > self.model.closed)
        if len(open_months) <= ahead:
            return
        month = open_months[ahead]
        name = month_name(month)
        self.now += timedelta(minutes=1)

        def act(ledger: Ledger, dry_run: bool = False) -> Any:
            by = ClosePolicy(
                house=house, unvalidated="a test", unreviewed="a test", leave_pending=leave, max_output_share=1
            )
            return close_period(ledger, name, by, books=self.books.books, dry_run=dry_run, now=self.now)

        try:
            expected = self.model.close(month, house, leave)
        except RefusedError:
            for ledger in self.ledgers:
                self.refused(lambda ledger=ledger: act(ledger))
            return
        tried = [act(ledger, dry_run=True) for ledger in self.ledgers]
        done = [act(ledger) for ledger in self.ledgers]
        assert tried[0].waterfalls == tried[1].waterfalls == done[0].waterfalls == done[1].waterfalls
        for ledger in self.ledgers:
            self.refused(lambda ledger=ledger: act(ledger))
        found = {(fall.provider, fall.currency): fall.amounts for fall in done[0].waterfalls}
        nothing = {line.name: 0 for line in STATEMENT_LINES}
        for key in expected.keys() | found.keys():
            assert found.get(key, nothing) == expected.get(key, nothing)
        for pool, earnings in done[0].earnings:
            assert sum(item.share.amount_minor for item in earnings) == pool.net_minor or not earnings
        self.closed_books_agree(name, found)
        for key in {key for key, _ in found}:
            one, other = self.read(lambda conn: explain_payout(conn, self.books.books, key, name))  # noqa: B023 - at once
            assert one == other
        self.statements_agree(name, month)

    def closed_books_agree(self, name: str, found: dict[tuple[str, str], dict[str, int]]) -> None:
        """A month opens with what the one before carried, and what it carries is what the accounts owe."""
        for key, lines in found.items():
            assert lines["opening"] == self.last.get(key, 0)
            self.last[key] = lines["carried_forward"]
        carried = {key: amount for key, amount in self.last.items() if amount}
        for owed in self.read(lambda conn: balances.provider_balances(conn, AccountKind.PAYABLE, through=name)):
            assert {key: amount for key, amount in owed.items() if key[0] in PROVIDERS} == carried

    def statements_agree(self, name: str, month: int) -> None:
        """Both engines give the same statements, which sum to what is payable, and never change."""
        one, other = self.read(lambda conn: statements.statements(conn, name))
        assert one == other
        self.told[name] = one
        payable: dict[str, int] = {}
        for item in one:
            body = json.loads(item.body_json)
            for line in body["balances"]:
                amount = parse_amount(line["payable"], line["currency"])
                payable[line["currency"]] = payable.get(line["currency"], 0) + amount
            for row in body.get("on_hold", []):
                line = f"{body['provider']['key']}/{row['collection']}"
                balance = parse_amount(row["balance"], row["currency"])
                assert balance == self.model.balances[f"money:held:{line}", row["currency"]]
                assert bool(row["reason"]) == (line in self.model.held_lines)
            for part in body.get("compared", {"balances": []})["balances"]:
                then, changes = part["before"], [*part["pools"], *part["lines"]]
                moved = [parse_amount(each["change"], part["currency"], allow_negative=True) for each in changes]
                assert parse_amount(then, part["currency"]) + sum(moved) == parse_amount(
                    part["payable"], part["currency"]
                )
            unvalued = [output for output in self.model.outputs if (output.state, output.month) == ("unvalued", month)]
            assert body["credits"].get("outputs_unvalued", 0) == len(unvalued)
        for rows in self.read(lambda conn: payouts.payouts(conn, name)):
            approved: dict[str, int] = {}
            for row in rows:
                approved[row.currency] = approved.get(row.currency, 0) + row.amount_minor
            assert approved == {code: amount for code, amount in payable.items() if amount}

    @rule(whose=st.sampled_from((*PROVIDERS, "house")))
    def remember(self, whose: str) -> None:
        moment, same = self.read(clock.last_recorded)
        assert moment == same
        if moment is not None:
            one, other = self.read(lambda conn: balances.balances(conn, whose, recorded=moment))
            assert one == other
            self.snapshots.append((moment, whose, one))

    @rule(minutes=st.integers(min_value=1, max_value=600))
    def set_the_clock_back(self, minutes: int) -> None:
        self.now -= timedelta(minutes=minutes)

    @invariant()
    def every_balance_is_the_models_and_everything_sums_to_zero(self) -> None:
        query = text(
            "SELECT a.key, e.commodity, sum(e.amount) FROM ledger_entry e JOIN account a ON a.id = e.account_id"
            " GROUP BY a.key, e.commodity"
        )
        one, other = self.read(lambda conn: {(row[0], row[1]): int(row[2]) for row in conn.execute(query)})
        assert one == other
        money = {key: value for key, value in one.items() if value and key[1] != CREDIT}
        assert money == {key: value for key, value in self.model.balances.items() if value}
        credited: dict[str, int] = {}
        for key, commodity in one.keys() - money.keys():
            kind = key.partition("/")[0]
            credited[kind] = credited.get(kind, 0) + one[key, commodity]
        assert {key: value for key, value in credited.items() if value} == self.model.credits()
        for commodity in {key[1] for key in one}:
            assert sum(value for key, value in one.items() if key[1] == commodity) == 0

    @invariant()
    def nobody_is_paid_more_than_is_payable_nor_recouped_more_than_was_advanced(self) -> None:
        for (account, currency), value in self.model.balances.items():
            kind, _, name = account.rpartition(":")
            if kind in {"money:held", "money:reserve", "money:payout", "money:withholding"}:
                assert value >= 0
            if kind == "money:advance":
                assert -self.advanced.get((name, currency), 0) <= value <= 0
        paid: dict[tuple[str, str], int] = {}
        for item in self.model.payouts:
            key = (item.provider, item.currency)
            paid[key] = paid.get(key, 0) + (item.amount if item.status == "paid" else 0)
        query = text(
            "SELECT p.key, o.currency, sum(o.amount_minor),"
            " sum(CASE o.status WHEN 'paid' THEN o.amount_minor ELSE 0 END)"
            " FROM payout o JOIN provider p ON p.id = o.provider_id GROUP BY p.key, o.currency"
        )
        for rows in self.read(lambda conn: conn.execute(query).all()):
            for provider, currency, approved, left in rows:
                assert int(left) == paid[provider, currency] <= int(approved)


def test_every_command_in_any_order_does_what_the_plain_model_does(postgres, sqlite_template, tmp_path):
    numbers = iter(range(10**6))

    def make() -> tuple[str, str]:
        path = tmp_path / f"{next(numbers)}.db"
        path.write_bytes(sqlite_template.read_bytes())
        return f"sqlite:///{path}", postgres.create(migrated=True)

    machine = type(
        "Machine", (Accounting,), {"make": staticmethod(make), "drop": staticmethod(postgres.drop), "folder": tmp_path}
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=10,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
