"""Two ledgers, on SQLite and PostgreSQL, and a plain model, that are told the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar
from unittest.mock import patch

from hypothesis.stateful import (
    RuleBasedStateMachine,
)
from sqlalchemy import Connection

from credit.errors import CreditError
from credit.ledger import balances, journal, providers, statements
from credit.ledger.database import Ledger
from credit.ledger.verify import verify
from credit.payments.details import set_provider_details
from credit.pipeline.workspace import Workspace
from tests.pipeline.books_of_account import PROVIDERS as RECORDS
from tests.pipeline.plain_model import (
    PROVIDERS,
    Model,
)

T = TypeVar("T")

START = datetime(2031, 1, 1, tzinfo=UTC)


class TwoLedgers(RuleBasedStateMachine):
    """What every rule needs: to do the same in both ledgers, to ask both, to see both refuse."""

    make: Callable[[], tuple[str, str]]
    folder: Path
    drop: Callable[[str], None]

    def __init__(self) -> None:
        super().__init__()
        self.urls = type(self).make()
        self.ledgers = [Ledger.open(url) for url in self.urls]
        self.books = Workspace("", Path(mkdtemp(dir=type(self).folder)))
        self.model = Model()
        self.now = START
        self.number = 0
        self.snapshots: list[tuple[datetime, str, list[balances.Balance]]] = []
        self.advanced: dict[tuple[str, str], int] = {}
        self.last: dict[tuple[str, str], int] = {}
        self.told: dict[str, list[statements.Statement]] = {}
        self.write(lambda conn: providers.import_providers(conn, RECORDS, now=self.now))
        # Salts are all that a ledger draws at random; with equal ones its seals can be compared too.
        with patch("credit.ledger.personal_data.secrets.token_hex", return_value=64 * "5"):
            for ledger, key in product(self.ledgers, PROVIDERS):
                set_provider_details(ledger, key, {"legal_name": f"{key} ltd", "paypal": f"{key}@a.org"}, now=self.now)

    def teardown(self) -> None:
        for moment, whose, before in self.snapshots:
            for found in self.read(lambda conn: balances.balances(conn, whose, recorded=moment)):  # noqa: B023 - at once
                assert found == before, "what was recorded by then never changes"
        for name, before in self.told.items():
            for found in self.read(lambda conn: statements.statements(conn, name)):  # noqa: B023 - at once
                assert found == before, "a statement never changes"
        for ledger in self.ledgers:
            assert verify(ledger, None).problems == ()
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
