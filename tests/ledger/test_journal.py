from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from credit.errors import IdempotencyError, LedgerError, PeriodClosedError
from credit.ledger import balances, journal
from credit.ledger.database import Ledger
from credit.ledger.journal import Entry, Posting
from credit.ledger.schema import account, ledger_entry, ledger_txn
from credit.ledger.transaction_kinds import TransactionDetails
from credit.ledger.verify import verify
from credit.records import CREDIT
from credit.storage import canonical_json
from tests.ledger import samples
from tests.ledger.samples import NOW, OCTOBER, SEPTEMBER, credit_posting


@pytest.fixture
def conn(conn: Connection) -> Connection:
    samples.add_providers(conn)
    return conn


@pytest.fixture
def ledger(ledger: Ledger) -> Ledger:
    with ledger.write() as conn:
        samples.add_providers(conn)
    return ledger


def all_balances(conn: Connection) -> dict[tuple[str, str], int]:
    """Every balance other than zero, summed by hand."""
    found: dict[tuple[str, str], int] = {}
    rows = conn.execute(
        select(account.c.key, ledger_entry.c.commodity, ledger_entry.c.amount).join_from(ledger_entry, account)
    )
    for key, commodity, amount in rows:
        found[key, commodity] = found.get((key, commodity), 0) + amount
    return {key: total for key, total in found.items() if total}


def test_a_posting_moves_what_it_says(conn):
    posted = journal.post(conn, credit_posting("a", 7, 5), now=NOW)
    assert (posted.txn_id, posted.seq, posted.replayed) == (1, 1, False)
    assert all_balances(conn) == {
        ("credits:issued", CREDIT): -12,
        ("credits:earned:ada/novels", CREDIT): 7,
        ("credits:earned:bell/default", CREDIT): 5,
    }


@dataclass(frozen=True, slots=True)
class _Facts(TransactionDetails):
    """Any details."""

    facts: Mapping[str, object]

    def said(self) -> dict[str, object]:
        return dict(self.facts)


def test_the_hash_is_that_of_the_documented_encoding(conn):
    """Against an encoding written down here, field by field."""
    first = journal.post(conn, credit_posting("a"), now=NOW)
    posting = replace(credit_posting("b", 7, 5), memo='"é\n', details=_Facts({"z": 1, "a": [2]}))
    second = journal.post(conn, posting, now=NOW)
    stored = conn.execute(select(ledger_txn).where(ledger_txn.c.seq == 2)).one()
    fields = [
        "credit.ledger.2", first.hash, 2, 3, "credits", "2026-10", "b", stored.input_sha256, "2026-10-05",
        "2026-10-05T12:30:00.000000Z", None, '"é\n', '{"a":[2],"z":1}', stored.actor,
        [["credits:issued", "CREDIT", -12], ["credits:earned:ada/novels", "CREDIT", 7],
         ["credits:earned:bell/default", "CREDIT", 5]],
    ]  # fmt: skip
    text = json.dumps(fields, separators=(",", ":"))
    assert second.hash == hashlib.sha256(text.encode()).hexdigest() == stored.hash
    assert stored.prev_hash == first.hash


TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXTS, lambda inner: st.lists(inner, max_size=2))


@given(
    TEXTS, TEXTS, TEXTS, st.lists(st.tuples(TEXTS, TEXTS, st.integers()), max_size=3),
    st.dictionaries(TEXTS, JSON, max_size=2), st.none() | st.integers(1),
    TEXTS,
)  # fmt: skip
def test_what_is_hashed_is_what_the_general_encoder_would_write(kind, key, memo, lines, details, reverses, actor):
    def sha256(value: object) -> str:
        return hashlib.sha256(canonical_json(value).encode()).hexdigest()

    entries = tuple(Entry(*line) for line in lines)
    posting = Posting(kind, OCTOBER, date(2026, 10, 5), key, entries, memo, _Facts(details), reverses)
    said = (journal.ENCODING, kind, OCTOBER, "2026-10-05", lines, memo, details, reverses)
    assert journal.input_sha256(posting) == sha256(said)
    header = journal.HashedFields(
        "p" * 64,
        7,
        2,
        kind,
        OCTOBER,
        key,
        "i" * 64,
        "2026-10-05",
        "now",
        reverses,
        memo,
        canonical_json(details),
    )
    assert journal.chain_hash(header, lines) == sha256((journal.ENCODING, *header[:-1], lines))
    named = header._replace(actor=actor)
    assert journal.chain_hash(named, lines) == sha256((journal.WITH_ACTOR, *named, lines))


def test_the_same_posting_again_returns_the_first_result(conn):
    first = journal.post(conn, credit_posting("a"), now=NOW)
    again = journal.post(conn, credit_posting("a"), now=NOW + timedelta(days=1))
    assert again == replace(first, replayed=True)
    assert journal.chain_head(conn) == (1, first.hash)


def test_a_replay_is_answered_also_when_the_period_has_closed(conn):
    first = journal.post(conn, credit_posting("a", period=SEPTEMBER), now=NOW)
    samples.close(conn, SEPTEMBER)
    assert journal.post(conn, credit_posting("a", period=SEPTEMBER), now=NOW) == replace(first, replayed=True)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"period": "2026-11"},
        {"effective_on": date(2026, 10, 6)},
        {"memo": "other"},
        {"details": _Facts({"a": 1})},
        {"entries": tuple(reversed(credit_posting("a").entries))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_same_key_with_another_input_is_an_error(conn, change):
    journal.post(conn, credit_posting("a"), now=NOW)
    with pytest.raises(IdempotencyError, match="'a' belongs to transaction 1"):
        journal.post(conn, replace(credit_posting("a"), **change), now=NOW)


def test_in_bulk_is_as_one_by_one(conn, shared_database):
    postings = [credit_posting(f"k{number % 7}", 1 + number % 7, 2) for number in range(20)]
    together = journal.post_all(conn, postings, now=NOW)
    assert [item.replayed for item in together] == [False] * 7 + [True] * 13
    with Ledger.open(shared_database()) as other, other.write() as single:
        samples.add_providers(single)
        assert [journal.post(single, posting, now=NOW) for posting in postings] == together


def test_a_batch_is_posted_whole_or_not_at_all(ledger):
    with pytest.raises(IdempotencyError), ledger.write() as conn:
        journal.post_all(conn, [credit_posting("a"), credit_posting("b"), credit_posting("a", 1, 1)], now=NOW)
    with ledger.read() as conn:
        assert journal.chain_head(conn)[0] == 0


def test_more_than_one_batch_of_rows_keeps_the_chain(ledger, monkeypatch):
    monkeypatch.setattr(journal, "ENTRIES_AT_ONCE", 10)
    with ledger.write() as conn:
        journal.post_all(conn, [credit_posting(f"k{number}") for number in range(23)], now=NOW)
    assert verify(ledger, None).problems == ()


def entries(*lines: tuple[str, str, int]) -> tuple[Entry, ...]:
    return tuple(Entry(*line) for line in lines)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"entries": entries(("money:external", "USD", 1))}, "at least two"),
        ({"entries": entries(("money:external", "USD", 1), ("money:payable:ada", "USD", -2))}, "sums to -1"),
        ({"entries": entries(("money:external", "USD", 0), ("money:payable:ada", "USD", 0))}, "other than zero"),
        ({"entries": entries(("money:external", "USD", 2**63), ("money:payable:ada", "USD", -(2**63)))}, "at most"),
        ({"entries": entries(("money:external", "USD", True), ("money:payable:ada", "USD", -1))}, "integer"),
        ({"entries": entries(("money:external", "usd", 1), ("money:payable:ada", "usd", -1))}, "ISO 4217"),
        ({"entries": entries(("money:external", "CREDIT", 1), ("money:payable:ada", "CREDIT", -1))}, "puts CREDIT"),
        ({"entries": entries(("money:external", "USD", 1), ("money:payable:eve", "USD", -1))}, "unknown provider"),
        ({"entries": entries(("money:elsewhere", "USD", 1), ("money:payable:ada", "USD", -1))}, "not an account"),
        ({"entries": entries(("money:pool:2026-13", "USD", 1), ("money:payable:ada", "USD", -1))}, "not an account"),
        ({"entries": entries(("credits:issued", CREDIT, 1), ("credits:earned:ada/", CREDIT, -1))}, "not an account"),
        ({"period": "October"}, "YYYY-MM"),
        ({"idempotency_key": ""}, "must not be empty"),
        ({"memo": "a\x00b"}, "cannot keep"),
    ],
)  # fmt: skip
def test_an_unsound_posting_is_refused_by_name(conn, change, match):
    with pytest.raises(LedgerError, match=match):
        journal.post(conn, replace(credit_posting("a"), **change), now=NOW)


def test_a_closed_period_takes_nothing(conn):
    journal.post(conn, credit_posting("a", period=SEPTEMBER), now=NOW)
    samples.close(conn, SEPTEMBER)
    with pytest.raises(PeriodClosedError, match="2026-09"):
        journal.post(conn, credit_posting("b", period=SEPTEMBER), now=NOW)


def test_a_reversal_cites_the_original_and_undoes_it(conn):
    first = journal.post(conn, credit_posting("a"), now=NOW)
    undone = journal.reverse(conn, first.txn_id, period=OCTOBER, reason="posted twice", now=NOW)
    row = conn.execute(select(ledger_txn).where(ledger_txn.c.id == undone.txn_id)).one()
    assert (row.reverses_txn_id, row.memo, row.effective_on) == (1, "posted twice", "2026-10-05")
    assert json.loads(row.details_json) == {"hash": first.hash, "kind": "credits"}
    assert all_balances(conn) == {}
    again = journal.reverse(conn, first.txn_id, period=OCTOBER, reason="posted twice", now=NOW)
    assert again == replace(undone, replayed=True)


def test_a_second_reversal_is_refused(conn):
    journal.post(conn, credit_posting("a"), now=NOW)
    journal.reverse(conn, 1, period=OCTOBER, reason="posted twice", now=NOW)
    with pytest.raises(IdempotencyError):
        journal.reverse(conn, 1, period=OCTOBER, reason="another reason", now=NOW)


@pytest.mark.parametrize(
    ("txn_id", "reason", "match"), [(7, "because", "no transaction 7"), (1, " ", "needs a reason")]
)
def test_a_reversal_of_nothing_or_for_nothing_is_refused(conn, txn_id, reason, match):
    with pytest.raises(LedgerError, match=match):
        journal.reverse(conn, txn_id, period=OCTOBER, reason=reason, now=NOW)


amounts = st.integers(min_value=-(2**40), max_value=2**40)
batches = st.lists(st.tuples(amounts, amounts).filter(lambda pair: 0 not in {*pair, sum(pair)}), max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=batches,
    undone=st.sets(st.integers(min_value=0, max_value=5)),
    days=st.integers(min_value=0, max_value=10_000),
)
def test_balances_are_those_of_what_was_posted_and_not_reversed(ledger, batch, undone, days):
    """Against a dict; every commodity sums to zero; as-of the posts, the reversals have not happened."""
    now = NOW + timedelta(days=days)
    with samples.undone(ledger) as conn:
        posted = journal.post_all(
            conn, [credit_posting(f"k{number}", *pair) for number, pair in enumerate(batch)], now=now
        )
        later = now + timedelta(microseconds=1)
        for number in undone:
            if number < len(batch):
                journal.reverse(conn, posted[number].txn_id, period=OCTOBER, reason="undo", now=later)
        kept = [pair for number, pair in enumerate(batch) if number not in undone]
        for key, column in (("credits:earned:ada/novels", 0), ("credits:earned:bell/default", 1)):
            assert balances.balance(conn, key, CREDIT) == sum(pair[column] for pair in kept)
            assert balances.balance(conn, key, CREDIT, recorded=now) == sum(pair[column] for pair in batch)
        assert sum(all_balances(conn).values()) == 0


def test_balances_beyond_64_bits_are_exact(ledger):
    big = 2**63 - 1
    with ledger.write() as conn:
        journal.post_all(
            conn,
            [
                Posting("pool", OCTOBER, date(2026, 10, 1), f"k{n}", entries(
                    ("money:external", "USD", -big), ("money:pool:2026-10", "USD", big)))
                for n in range(3)
            ],
            now=NOW,
        )  # fmt: skip
        assert balances.balance(conn, "money:pool:2026-10", "USD") == 3 * big
        assert balances.balance(conn, "money:external", "USD") == -3 * big
    assert verify(ledger, None).problems == ()
