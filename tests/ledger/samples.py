"""A small ledger with something in every table: September closed, October open."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from credit.ledger import (
    admission,
    aliases,
    approvals,
    file_readings,
    fx,
    heads,
    holds,
    indexes,
    journal,
    payee_accounts,
    payouts,
    periods,
    personal_data,
    pools,
    providers,
    purges,
    score_books,
    signing_keys,
    statements,
    terms,
    unvalued,
    voids,
)
from credit.ledger.credits import credit_totals
from credit.ledger.database import Ledger
from credit.ledger.journal import Entry, Posting
from credit.records import CREDIT, CallIdentity, GivenRate, LoggedOutput, Message, Provider, Rate, SpanLink, Terms

NOW = datetime(2026, 10, 5, 12, 30, tzinfo=UTC)
SEPTEMBER, OCTOBER = "2026-09", "2026-10"
MODEL = "tiny"
KEY, NEXT_KEY = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
"""Signing keys: the one that signs, and one for a rotation."""
BOOK = b"the bytes of a score book"
BOOK_SHA256 = hashlib.sha256(BOOK).hexdigest()


class _Undo(Exception):
    """Ends a transaction that is to leave nothing."""


@contextmanager
def undone(ledger: Ledger) -> Iterator[Connection]:
    """A transaction that leaves nothing."""
    with suppress(_Undo), ledger.write() as conn:
        yield conn
        raise _Undo


def add_providers(conn: Connection) -> None:
    providers.import_providers(conn, [Provider("ada", "Ada Press"), Provider("bell", "Bell & Sons")], now=NOW)


def credit_posting(
    key: str, ada: int = 600_000, bell: int = 400_000, *, period: str = OCTOBER, day: date = date(2026, 10, 5)
) -> Posting:
    """Credits of two providers, in micro-credits."""
    entries = (
        Entry("credits:issued", CREDIT, -(ada + bell)),
        Entry("credits:earned:ada/novels", CREDIT, ada),
        Entry("credits:earned:bell/default", CREDIT, bell),
    )
    return Posting("credits", period, day, key, entries)


def logged(number: int, **changes: object) -> LoggedOutput:
    fields: dict[str, object] = {
        "source": "log",
        "external_id": f"out-{number}",
        "occurred_at": datetime(2026, 9, 1 + number % 28, 8, tzinfo=UTC),
        "model": MODEL,
        "completion": f"completion {number} é",
        "prompt": f"prompt {number}",
    }
    return LoggedOutput(**{**fields, **changes})


def pseudonym(digit: str) -> str:
    """The pseudonym of a user or a text, as a key would make it."""
    return f"0a1b2c3d-{digit * 32}"


def add_outputs(conn: Connection, items: list[LoggedOutput], links: Sequence[SpanLink] = ()) -> list[admission.Verdict]:
    file_id = admission.start_file(conn)
    admission.add_spans(conn, links, file_id)
    verdicts = [added.verdict for added in admission.add_outputs(conn, items, file_id, lines=range(1, len(items) + 1))]
    accepted = verdicts.count(admission.Verdict.ACCEPTED)
    duplicates = verdicts.count(admission.Verdict.DUPLICATE)
    admission.record_file(
        conn,
        file_id,
        sha256="c" * 64,
        name="outputs.jsonl",
        format="own",
        accepted=accepted,
        duplicates=duplicates,
        quarantined=len(items) - accepted - duplicates,
        now=NOW,
    )
    return verdicts


def add_index(conn: Connection, name: str = MODEL, fingerprint: str = "f" * 64) -> indexes.RegisteredIndex:
    return indexes.register_index(conn, name, fingerprint, "indexes/tiny", '{"rank": 64}', now=NOW)


def value(conn: Connection, index_id: int, output_ids: list[int], *, sha256: str = BOOK_SHA256) -> int:
    run = score_books.ensure_run(
        conn, f"run-{index_id}", index_id=index_id, policy_json="{}", software_version="0.1.0", now=NOW
    )
    return score_books.register_book(
        conn,
        sha256=sha256,
        compute_run_id=run,
        output_ids=output_ids,
        row_count=2 * len(output_ids),
        byte_count=len(BOOK),
        now=NOW,
    )


def close(conn: Connection, name: str) -> None:
    """Share out every pool of a period equally between two providers with equal credits, and close it."""
    periods.close_lock(conn, name, now=NOW)
    credited = credit_totals(conn, name) or {"ada": 1, "bell": 1}
    for item in pools.pools(conn, name):
        half = item.net_minor // 2
        shares = {"ada": item.net_minor - half, "bell": half}
        entries = (
            Entry(f"money:pool:{name}", item.currency, -item.net_minor),
            *(Entry(f"money:payable:{key}", item.currency, amount) for key, amount in shares.items()),
        )
        posting = Posting("allocation", name, date.fromisoformat(f"{name}-28"), f"close:{item.id}", entries)
        txn_id = journal.post(conn, posting, now=NOW).txn_id
        pools.add_allocations(
            conn,
            [
                pools.Allocation(name, item.id, key, credited[key], sum(credited.values()), amount, txn_id)
                for key, amount in shares.items()
            ],
        )
        paid = (Entry("money:payable:ada", item.currency, -50), Entry("money:payout:ada", item.currency, 50))
        approval = Posting("payout", name, date.fromisoformat(f"{name}-28"), f"payout:{item.id}", paid)
        approved = journal.post(conn, approval, now=NOW)
        payouts.add_payouts(conn, name, [payouts.NewPayout("ada", item.currency, 50, approved.txn_id)])
    statements.add_statements(conn, name, [("ada", '{"payable":"0.51"}')], now=NOW)
    periods.mark_closed(conn, name, policy_json='{"house":"keep"}', now=NOW)


def add_certificate(conn: Connection, fingerprint: str = "f" * 64) -> indexes.RegisteredCertificate:
    body = f'{{"index":"{fingerprint}","kind":"retraining"}}'
    return indexes.register_certificate(conn, fingerprint, "retraining", body, now=NOW)


def add_review(
    conn: Connection, kind: indexes.ReviewKind = "overlap", fingerprint: str = "f" * 64
) -> indexes.RegisteredReview:
    body = f'{{"index":"{fingerprint}","kind":"{kind}"}}'
    return indexes.register_review(conn, fingerprint, kind, body, now=NOW)


def populate(conn: Connection) -> None:
    """Put something into every table."""
    populate_first(conn)
    add_certificate(conn)
    add_review(conn)
    agreed = Terms(minimum_payout_minor=100, reserve_ppm=50_000, reserve_release_periods=2)
    terms.agree(conn, "ada", "USD", agreed, date(2026, 10, 1), now=NOW)
    fx.give_rate(conn, GivenRate("EUR", "USD", date(2026, 10, 2), Rate(10842, 4), "ECB reference rate"), now=NOW)
    holds.place_hold(conn, "bell", None, "who owns the rights is disputed", now=NOW)
    statements.set_issuer(conn, statements.Issuer("Example Labs", "1 Long Lane", "Registered in England"), now=NOW)
    holds.place_hold(conn, "ada", None, "who wrote it is disputed", collection="novels", now=NOW)
    entries = (Entry("money:payable:ada", "USD", -1), Entry("money:reserve:ada", "USD", 1))
    held = journal.post(conn, Posting("reserve", OCTOBER, date(2026, 10, 31), "reserve", entries), now=NOW)
    pools.add_reserves(conn, [pools.Reserve(OCTOBER, "ada", "USD", 1, "2026-12", held.txn_id)])
    call = CallIdentity("trace", "inner", "outer", "response", "request")
    spans = [SpanLink("trace", "inner", "outer", is_call=True), SpanLink("trace", "outer", "", is_call=False)]
    add_outputs(conn, [logged(3, completion="", identity=call)], spans)
    aliases.add_alias(conn, "openai/*", MODEL, now=NOW)
    seen = file_readings.FileReading("/logs/outputs.jsonl", "a" * 64, 7, 8, "b" * 64, 5, 1, 0, 1, NOW)
    file_readings.record_reading(conn, seen)
    unvalued.unvalue(conn, "log:out-3", "it has no token", now=NOW)
    purges.purge_outputs(conn, date(2026, 9, 3), reason="texts are kept for a month", now=NOW)
    export(conn, SEPTEMBER)
    flags = payee_accounts.red_flags(conn, ["ada"], payer_ibans=["DE02120300000000202051"], waiting_days=7, now=NOW)
    accepted = payee_accounts.accepted_flags(flags, "ada", "Eve Sommer: the house pays itself")
    payee_accounts.record_acceptances(conn, accepted, now=NOW)
    entries = (Entry("money:payable:bell", "EUR", -5), Entry("money:payout:bell", "EUR", 5))
    approved = journal.post(conn, Posting("payout", OCTOBER, date(2026, 10, 31), "payout", entries), now=NOW)
    payouts.add_payouts(conn, OCTOBER, [payouts.NewPayout("bell", "EUR", 5, approved.txn_id)])
    voids.void_payout(conn, OCTOBER, "bell", "EUR", reason="paid by cheque", goes_to="house", now=NOW)
    propose_and_refuse(conn)
    signing_keys.enter_key(conn, KEY.public_key(), now=NOW)
    heads.sign_head(conn, KEY, now=NOW)


def propose_and_refuse(conn: Connection) -> None:
    """Propose details of a provider, and refuse them; an approval that is given would need a second database role."""
    approvals.record_rule(conn, "an action of another version", required=True, now=NOW)
    proposed = approvals.add_proposal(
        conn,
        "details",
        {"provider": "bell", "fields": ["town"]},
        summary=["payment details of bell: town"],
        facts_sha256="d" * 64,
        row_count=1,
        personal=approvals.PersonalArguments("bell", {"town": "Paris"}, "5" * 64),
        now=NOW,
    )
    approvals.decide(conn, proposed, "refused", reason="another town", now=NOW)


def export(conn: Connection, period: str) -> payouts.PayoutBatch:
    """Put the pending payouts of a period into a batch."""
    items = payouts.payable_payouts(conn, period, retry=False)
    account = {"iban": "DE02120300000000202051", "paypal": "ada@example.org"}
    paid_to = personal_data.Details(legal_name="Ada Lovelace", town="London", **account)
    version = personal_data.set_details(conn, "ada", paid_to, now=NOW)
    return payouts.record_batch(
        conn,
        payouts.next_batch(conn, NOW),
        period=period,
        currency=items[0].currency,
        format="csv",
        payer_json="{}",
        items=[(item, version) for item in items],
        file_sha256="e" * 64,
    )


def populate_first(conn: Connection) -> None:
    """Put something into every table of the first revision but contract_term, which others have changed."""
    add_providers(conn)
    index = add_index(conn)
    known = {"user": pseudonym("1"), "text": pseudonym("2")}
    add_outputs(conn, [logged(1, **known), logged(2, prompt="", messages=(Message("user", "hi"),))])
    value(conn, index.id, [1, 2])
    journal.post(conn, credit_posting("sep", 500_000, 500_000, period=SEPTEMBER, day=date(2026, 9, 2)), now=NOW)
    journal.post(conn, credit_posting("oct"), now=NOW)
    journal.reverse(conn, 2, period=OCTOBER, reason="posted twice", now=NOW)
    journal.post(conn, credit_posting("oct again", 7, 5), now=NOW)
    pools.add_pool(conn, SEPTEMBER, "USD", gross_minor=121, deductions_minor=20, reference="subscriptions", now=NOW)
    close(conn, SEPTEMBER)
    pools.add_pool(conn, OCTOBER, "EUR", gross_minor=10, deductions_minor=0, reference="licences", now=NOW)
