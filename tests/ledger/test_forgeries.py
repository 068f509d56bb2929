"""An insider who hashes everything anew is found by a head that was kept outside, and by nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from credit.ledger import heads, holds, journal, personal_data, seals, signing_keys, statements
from credit.ledger.actor import OPTION
from credit.ledger.database import Ledger
from credit.ledger.verify import check_all, verify
from credit.ledger.verify.heads import UNKNOWN, check_outside_heads
from credit.proofs import Head
from tests.ledger import samples
from tests.ledger.forgeries import BANK, FORGERIES, rehash
from tests.ledger.tampering import CHECKS_OF_ROWS, unguarded

SECURITY = (Path(__file__).parents[2] / "SECURITY.md").read_text("utf-8")
RESTORED = "an older backup restored"

Kept = tuple[Ledger, str, Head, Head]


@pytest.fixture(scope="module")
def kept(shared_database: Callable[..., str]) -> Iterator[Kept]:
    """A ledger with October closed, and the heads that somebody kept before and after that."""
    url = shared_database()
    with Ledger.open(url) as opened:
        with opened.write() as conn:
            samples.populate(conn)
            paid_to = personal_data.Details(legal_name="Bell & Sons", iban=BANK, town="Bonn", country="DE")
            personal_data.set_details(conn, "bell", paid_to, now=samples.NOW)
            (_, chain), (_, sealed) = journal.chain_head(conn), seals.seal_head(conn)
            body = json.dumps({"chain_head": chain, "seal_head": sealed})
            statements.add_statements(conn, samples.SEPTEMBER, [("bell", body)], now=samples.NOW)
            holds.release_hold(conn, "ada", None, "settled", collection="novels", now=samples.NOW)
            journal.post(conn, samples.credit_posting("so that both have eight", 1, 3), now=samples.NOW)
            first = heads.sign_head(conn, samples.KEY, now=samples.NOW)
            samples.close(conn, samples.OCTOBER)
            last = heads.sign_head(conn, samples.KEY, now=samples.NOW + timedelta(days=30))
        yield opened, url, first, last


def found_alone(conn: Connection) -> list[str]:
    """What the checks find without a head; the triggers are off here, and not judged."""
    return [str(problem) for problem in check_all(conn, CHECKS_OF_ROWS)]


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_that_was_hashed_anew_is_found_by_the_head_of_last_month_alone(kept, name):
    _, url, first, last = kept
    with unguarded(url, undo=True) as conn:
        assert list(check_outside_heads(conn, [first, last])) == []
        FORGERIES[name](conn)
        rehash(conn)
        signing_keys.check_active(conn, samples.KEY.public_key())
        assert found_alone(conn) == []
        problems = list(check_outside_heads(conn, [first, last]))
    assert [problem.place for problem in problems][-1:] == [
        f"head of 2026-11-04T12:30:00.000000Z with {last.size} entries"
    ]
    assert len(problems) == (1 if name == "a close deleted" else 2)
    if name == "a close deleted":
        assert "longer than this ledger" in problems[0].message
    else:
        assert "somebody changed, inserted or removed at least one" in problems[0].message


def test_an_earlier_head_that_agrees_narrows_the_place(kept):
    _, url, first, last = kept
    with unguarded(url, undo=True) as conn:
        conn.exec_driver_sql(
            "UPDATE statement SET created_at = '2026-10-06T12:30:00.000000Z' WHERE period_id = '2026-10'"
        )
        rehash(conn)
        (problem,) = check_outside_heads(conn, [first, last])
    assert f"of its entries {first.size + 1} to {last.size}, now head 2 to " in problem.message


def test_a_restored_backup_is_found_by_a_later_head_alone(kept):
    """The ledger is the backup: what was written and signed after it is gone."""
    ledger, _, _, _ = kept
    with samples.undone(ledger) as conn:
        journal.post(conn, samples.credit_posting("after the backup", period="2026-11"), now=samples.NOW)
        signed = heads.sign_head(conn, samples.KEY, now=samples.NOW)
    assert verify(ledger, None).problems == ()
    (problem,) = verify(ledger, None, outside=[signed]).problems
    assert "later ones were removed, or an older backup was restored" in problem.message


def test_a_restored_backup_that_went_on_is_found(kept):
    ledger, _, _, _ = kept
    with samples.undone(ledger) as conn:
        journal.post(conn, samples.credit_posting("after the backup", period="2026-11"), now=samples.NOW)
        signed = heads.sign_head(conn, samples.KEY, now=samples.NOW)
    with samples.undone(ledger) as conn:
        for number in range(5):
            journal.post(conn, samples.credit_posting(f"another life {number}", period="2026-11"), now=samples.NOW)
        (problem,) = check_outside_heads(conn, [signed])
    assert "is not what the ledger holds" in problem.message


def test_the_whole_verification_says_what_it_cannot_know(populated_url):
    with Ledger.open(populated_url) as ledger:
        with ledger.write() as conn:
            signed = heads.sign_head(conn, samples.KEY, now=samples.NOW)
        assert verify(ledger, None, outside=[signed]).unknown == ""
        with unguarded(populated_url) as conn:
            FORGERIES["terms dated back"](conn)
            rehash(conn)
        report = verify(ledger, None)
        assert (report.problems, report.unknown) == ((), UNKNOWN)
        assert len(verify(ledger, None, outside=[signed]).problems) == 1


def test_a_new_key_of_the_insider_does_not_help(kept):
    _, url, first, last = kept
    with unguarded(url, undo=True) as conn:
        conn.exec_driver_sql("DELETE FROM head")
        conn.exec_driver_sql("DELETE FROM signing_key")
        rehash(conn)
        conn.execution_options(**{OPTION: "mallory"})
        signing_keys.enter_key(conn, samples.NEXT_KEY.public_key(), origin=first.origin, now=samples.NOW)
        heads.sign_head(conn, samples.NEXT_KEY, now=samples.NOW)
        assert found_alone(conn) == []
        problems = list(check_outside_heads(conn, [first, last]))
    assert {problem.message for problem in problems} == {"was not signed with a key of this ledger"}


def test_the_page_on_security_names_every_forgery_and_what_finds_it():
    named = re.findall(r"^\| ([^|]+) \| not found \| found \|$", SECURITY, re.MULTILINE)
    assert set(named) == {*FORGERIES, RESTORED}
