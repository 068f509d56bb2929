"""A ledger of money for tests: credits posted as given, without a model, and periods closed by the real close."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from credit.ledger import balances, journal, periods, pools, providers, statements, terms, values
from credit.ledger.accounts import AccountKind
from credit.ledger.database import Ledger
from credit.ledger.journal import Entry, Posting
from credit.pipeline.close import ClosePolicy, CloseReport, close_period
from credit.records import CREDIT, Group, Provider, Terms

NOW = datetime(2026, 12, 20, 9, tzinfo=UTC)
JANUARY, FEBRUARY, MARCH, APRIL = "2026-01", "2026-02", "2026-03", "2026-04"
PROVIDERS = (Provider("ann", "Ann"), Provider("ben", "Ben"), Provider("own", "Own data", "house"))


@dataclass
class Account:
    """A ledger, and what tests do with it."""

    ledger: Ledger
    number: int = field(default=0)
    books: Path | None = None
    policy: Mapping[str, object] = field(default_factory=lambda: {"unvalidated": "a test", "unreviewed": "a test"})

    def start(self) -> Account:
        with self.ledger.write() as conn:
            providers.import_providers(conn, PROVIDERS, now=NOW)
        return self

    def credits(self, period: str, credited: Mapping[str, int], day: date | None = None) -> int:
        """Post credits of outputs of a day, in micro-credits by provider; return the transaction."""
        lines = [
            Entry(AccountKind.EARNED.key(Group(key)), CREDIT, micro) for key, micro in sorted(credited.items()) if micro
        ]
        entries = (Entry(AccountKind.ISSUED.key(), CREDIT, -sum(line.amount for line in lines)), *lines)
        self.number += 1
        posting = Posting("credits", period, day or values.first_day(period), f"credits {self.number}", entries)
        with self.ledger.write() as conn:
            return journal.post(conn, posting, now=NOW).txn_id

    def pool(self, period: str, net: int, currency: str = "EUR", reference: str = "main") -> pools.Pool:
        with self.ledger.write() as conn:
            return pools.add_pool(conn, period, currency, net, 0, reference, NOW)

    def agree(self, provider: str, currency: str = "EUR", begin: date = date.min, **values: object) -> None:
        with self.ledger.write() as conn:
            terms.agree(conn, provider, currency, Terms(**values), begin, now=NOW)

    def close(self, period: str, *, dry_run: bool = False, now: datetime = NOW, **policy: object) -> CloseReport:
        chosen = ClosePolicy(**{**self.policy, **policy})
        return close_period(self.ledger, period, chosen, books=self.books, dry_run=dry_run, now=now)

    def month(self, period: str, net: int, credited: Mapping[str, int], **policy: object) -> CloseReport:
        """A whole period: credits, one pool, close."""
        self.credits(period, credited)
        self.pool(period, net)
        return self.close(period, **policy)

    def balance(self, account: str, currency: str = "EUR") -> int:
        with self.ledger.read() as conn:
            return balances.balance(conn, account, currency)

    def statement(self, period: str, provider: str) -> dict[str, object]:
        with self.ledger.read() as conn:
            texts = [item.body_json for item in statements.statements(conn, period) if item.provider == provider]
        return json.loads(texts[-1])

    def statements(self) -> dict[tuple[str, str, int], str]:
        """Every statement's text, by period, provider and version."""
        with self.ledger.read() as conn:
            return {
                (item.period, item.provider, item.version): item.body_json
                for period in periods.periods(conn)
                for item in statements.statements(conn, period.id)
            }

    def owed(self) -> dict[tuple[str, str], int]:
        with self.ledger.read() as conn:
            return balances.provider_balances(conn, AccountKind.PAYABLE)
