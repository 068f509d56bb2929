"""Every command of the accounting in any order, on SQLite and PostgreSQL at once, against a plain model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, text

from credit.errors import CreditError
from credit.ledger import balances, catalog, corrections, holds, integrity, journal, periods, pools, statements, terms
from credit.ledger.accounts import ISSUED, earned
from credit.ledger.engine import Ledger
from credit.ledger.journal import Entry, Posting
from credit.pipeline.closing import ClosePolicy, CloseSettings, close_period
from credit.records import CREDIT, Group, Terms
from tests.conftest import PostgresServer
from tests.pipeline.books_of_account import PROVIDERS as RECORDS
from tests.pipeline.plain_model import HOUSE, PROVIDERS, Agreed, Model, Pool, Posted, RefusedError, month_name

T = TypeVar("T")

START = datetime(2031, 1, 1, tzinfo=UTC)
LINES = (
    "opening",
    "earned",
    "adjustments",
    "reserve_held",
    "reserve_released",
    "recouped",
    "withheld",
    "fees",
    "payable",
    "carried",
)

provider = st.sampled_from(PROVIDERS)
currency = st.sampled_from(["EUR", "USD"])
ahead = st.sampled_from([0, 0, 0, 1, 2])
ppm = st.sampled_from([0, 1, 333_333, 500_000, 999_999, 1_000_000, 1_000_000])
micro = st.lists(st.integers(0, 5_000_000), min_size=4, max_size=4)
policy = st.sampled_from(["return", "redistribute", "escrow"])
amount = st.one_of(st.integers(1, 30), st.integers(1_000, 10**6))


def _agreed(**values: int) -> Agreed:
    return Agreed(**{**values, "months": values["months"] if values["reserve"] else 0})


agreed = st.builds(
    _agreed,
    rate=ppm,
    minimum=st.sampled_from([0, 0, 500, 10**6]),
    reserve=st.sampled_from([0, 1, 100_000, 333_333]),
    months=st.integers(1, 2),
    recoupment=ppm,
    withholding=st.sampled_from([0, 0, 157_777, 1_000_000]),
    fee=st.sampled_from([0, 0, 25]),
)


class Accounting(RuleBasedStateMachine):
    """Two ledgers and a model that are told the same."""

    make: Callable[[], tuple[str, str]]
    drop: Callable[[str], None]

    def __init__(self) -> None:
        super().__init__()
        self.urls = type(self).make()
        self.ledgers = [Ledger.open(url) for url in self.urls]
        self.model = Model()
        self.now = START
        self.number = 0
        self.snapshots: list[tuple[datetime, str, list[balances.Balance]]] = []
        self.advanced: dict[tuple[str, str], int] = {}
        self.write(lambda conn: catalog.import_providers(conn, RECORDS, now=self.now))

    def teardown(self) -> None:
        for moment, whose, before in self.snapshots:
            for found in self.read(lambda conn: balances.balances(conn, whose, recorded=moment)):  # noqa: B023 - at once
                assert found == before, "what was recorded by then never changes"
        for ledger in self.ledgers:
            assert integrity.verify(ledger, None).problems == ()
            ledger.close()
        type(self).drop(self.urls[1])

    def write(self, act: Callable[[Connection], T]) -> T:
        """Do the same in both ledgers, which must say the same."""
        results = []
        for ledger in self.ledgers:
            with ledger.write() as conn:
                results.append(act(conn))
        assert results[0] == results[1]
        return results[0]

    def read(self, ask: Callable[[Connection], T]) -> list[T]:
        answers = []
        for ledger in self.ledgers:
            with ledger.read() as conn:
                answers.append(ask(conn))
        return answers

    def post(self, act: Callable[[Connection], journal.Posted]) -> int:
        """Post in both ledgers, then once more: twice is once."""
        self.now += timedelta(minutes=1)
        first = self.write(act)
        heads = self.read(journal.chain_head)
        again = self.write(act)
        assert (again.txn_id, again.replayed) == (first.txn_id, True)
        assert self.read(journal.chain_head) == heads
        return first.txn_id

    def refused(self, act: Callable[[], object]) -> None:
        """Both ledgers refuse and stay as they were."""
        heads = self.read(journal.chain_head)
        with suppress(CreditError):
            act()
            raise AssertionError("the model expected a refusal")
        assert self.read(journal.chain_head) == heads

    @initialize(data=st.data())
    def start_with_terms(self, data: st.DataObject) -> None:
        for key in ((name, code) for name in PROVIDERS for code in ("EUR", "USD")):
            if data.draw(st.integers(0, 3)):
                self.agree_on(key, data.draw(agreed))
            if data.draw(st.booleans()):
                self.advance(0, *key, data.draw(amount))

    @rule(micro=micro, nets=st.tuples(amount, amount), house=policy)
    def settle_a_month(self, micro: list[int], nets: tuple[int, int], house: str) -> None:
        """Credits, a pool in each currency, and the close, if no earlier command stands in the way."""
        self.earn(0, micro)
        for net, code in zip(nets, ("EUR", "USD"), strict=True):
            self.pool(0, net, code)
        self.close(house, 0)

    @rule(ahead=ahead, micro=micro)
    def earn(self, ahead: int, micro: list[int]) -> None:
        month = self.model.closed + 1 + ahead
        credited = {key: value for key, value in zip((*PROVIDERS, *HOUSE), micro, strict=True) if value}
        if not credited:
            return
        self.number += 1
        lines = [Entry(earned(Group(key)), CREDIT, value) for key, value in sorted(credited.items())]
        entries = (Entry(ISSUED, CREDIT, -sum(credited.values())), *lines)
        name = month_name(month)
        posting = Posting("credits", name, periods.first_day(name), f"credits {self.number}", entries)
        number = self.post(lambda conn: journal.post(conn, posting, now=self.now))
        self.model.earn(month, credited)
        self.model.posted[number] = Posted("credits", month, credited)

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
        what = {"paid_on": periods.first_day(month_name(month)), "reference": f"a-{self.number}", "now": self.now}
        number = self.post(lambda conn: corrections.pay_advance(conn, provider, amount, currency, **what))
        self.model.advance(month, provider, currency, amount)
        self.model.posted[number] = Posted("advance", month, (provider, currency, amount))
        key = (provider, currency)
        self.advanced[key] = self.advanced.get(key, 0) + amount

    @rule(key=st.tuples(provider, currency), agreed=agreed)
    def agree_on(self, key: tuple[str, str], agreed: Agreed) -> None:
        item = Terms(
            agreed.rate,
            agreed.minimum,
            agreed.reserve,
            agreed.months,
            agreed.recoupment,
            agreed.withholding,
            agreed.fee,
        )
        begin = periods.first_day(month_name(self.model.closed + 1))
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
            self.post(undo)

    @rule(house=policy, ahead=st.sampled_from([0, 0, 0, 1]))
    def close(self, house: str, ahead: int) -> None:
        """The next open period closes with the model's lines; one out of order, or without a pool, does not."""
        open_months = sorted(month for month in self.model.opened if month > self.model.closed)
        if len(open_months) <= ahead:
            return
        month = open_months[ahead]
        name = month_name(month)
        self.now += timedelta(minutes=1)

        def act(ledger: Ledger, dry_run: bool = False) -> Any:
            return close_period(ledger, name, CloseSettings(ClosePolicy(house=house, unvalidated="a test"), dry_run), now=self.now)

        try:
            expected = self.model.close(month, house)
        except RefusedError:
            for ledger in self.ledgers:
                self.refused(lambda ledger=ledger: act(ledger))
            return
        tried = [act(ledger, dry_run=True) for ledger in self.ledgers]
        done = [act(ledger) for ledger in self.ledgers]
        assert tried[0].waterfalls == tried[1].waterfalls == done[0].waterfalls == done[1].waterfalls
        for ledger in self.ledgers:
            self.refused(lambda ledger=ledger: act(ledger))
        found = {
            (fall.provider, fall.currency): {line: getattr(fall, f"{line}_minor") for line in LINES}
            for fall in done[0].waterfalls
        }
        nothing = dict.fromkeys(LINES, 0)
        for key in expected.keys() | found.keys():
            assert found.get(key, nothing) == expected.get(key, nothing)
        one, other = self.read(lambda conn: statements.statements(conn, name))
        assert one == other, "both engines give the same statements"
        for pool, earnings in done[0].earnings:
            assert sum(item.share.amount_minor for item in earnings) == pool.net_minor or not earnings

    @rule(whose=st.sampled_from((*PROVIDERS, "house")))
    def remember(self, whose: str) -> None:
        self.now += timedelta(minutes=1)
        one, other = self.read(lambda conn: balances.balances(conn, whose, recorded=self.now))
        assert one == other
        self.snapshots.append((self.now, whose, one))
        self.now += timedelta(minutes=1)

    @invariant()
    def every_balance_is_the_models_and_everything_sums_to_zero(self) -> None:
        query = text(
            "SELECT a.key, e.commodity, sum(e.amount) FROM ledger_entry e JOIN account a ON a.id = e.account_id"
            " GROUP BY a.key, e.commodity"
        )
        one, other = self.read(lambda conn: {(row[0], row[1]): int(row[2]) for row in conn.execute(query)})
        assert one == other
        assert {key: value for key, value in one.items() if value and key[1] != CREDIT} == {
            key: value for key, value in self.model.balances.items() if value
        }
        for commodity in {key[1] for key in one}:
            assert sum(value for key, value in one.items() if key[1] == commodity) == 0

    @invariant()
    def nobody_is_paid_more_than_is_payable_nor_recouped_more_than_was_advanced(self) -> None:
        for (account, currency), value in self.model.balances.items():
            kind, _, name = account.rpartition(":")
            if kind in {"money:reserve", "money:payout", "money:withholding"}:
                assert value >= 0
            if kind == "money:advance":
                assert -self.advanced.get((name, currency), 0) <= value <= 0


def test_every_command_in_any_order_does_what_the_plain_model_does(
    postgres: PostgresServer, sqlite_template: Path, tmp_path: Path
) -> None:
    numbers = iter(range(10**6))

    def make() -> tuple[str, str]:
        path = tmp_path / f"{next(numbers)}.db"
        path.write_bytes(sqlite_template.read_bytes())
        return f"sqlite:///{path}", postgres.create(migrated=True)

    machine = type("Machine", (Accounting,), {"make": staticmethod(make), "drop": staticmethod(postgres.drop)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=22,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
