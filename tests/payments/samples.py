"""A ledger in which September is closed and four providers wait for their money, in two currencies."""

from __future__ import annotations

from datetime import UTC, date, datetime

from credit.ledger import journal, payouts, periods, providers
from credit.ledger.database import Ledger
from credit.ledger.journal import Entry, Posting
from credit.payments.channels.channel import Payer
from credit.payments.details import set_provider_details
from credit.records import Provider

NOW = datetime(2026, 10, 5, 12, 30, tzinfo=UTC)
SEPTEMBER = "2026-09"
OWED = {("ada", "EUR"): 12_345, ("bell", "EUR"): 1, ("bell", "USD"): 99, ("cho_7", "EUR"): 100_000_000}
IBANS = {"ada": "DE02120300000000202051", "bell": "FR1420041010050500013M02606", "cho_7": "NL91ABNA0417164300"}
PAYER = Payer("Example GmbH", "DE75512108001245126199", "", "Berlin", "DE", "2026-10-06")


def details_of(key: str) -> dict[str, str]:
    return {
        "legal_name": f"{key.title().replace('_', ' ')} Legal",
        "receiver": "person",
        "email": f"{key}@example.org",
        "paypal": f"pay.{key}@example.org",
        "iban": IBANS[key],
        "street": "Long Lane",
        "building": "7",
        "postcode": "10115",
        "town": "Berlin",
        "country": "DE",
        "tax_id": f"TAX-{key}",
    }


def owe(ledger: Ledger) -> None:
    """Close September with the payouts in `OWED`."""
    with ledger.write() as conn:
        providers.import_providers(conn, [Provider(key, key.title()) for key in IBANS], now=NOW)
        day = date(2026, 9, 30)
        for (key, currency), amount in OWED.items():
            lines = (Entry("money:external", currency, -amount), Entry(f"money:payout:{key}", currency, amount))
            posting = Posting("payout", SEPTEMBER, day, f"payout:{key}:{currency}", lines)
            posted = journal.post(conn, posting, now=NOW)
            payouts.add_payouts(conn, SEPTEMBER, [payouts.NewPayout(key, currency, amount, posted.txn_id)])
        periods.close_lock(conn, SEPTEMBER, now=NOW)
        periods.mark_closed(conn, SEPTEMBER, policy_json="{}", now=NOW)


def know_details(ledger: Ledger) -> None:
    """Record how everybody in `OWED` is paid."""
    for key in IBANS:
        set_provider_details(ledger, key, details_of(key), now=NOW)
