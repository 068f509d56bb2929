"""Heads: one order of all transactions and seals that only grows, the same on both engines, and what signs it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from credit.errors import LedgerError
from credit.ledger import heads, holds, journal, signing_keys
from credit.ledger.schema import ledger_txn, seal
from credit.ledger.verify.chains import check_seals
from credit.ledger.verify.heads import check_signed_heads, check_signing_keys
from credit.proofs import leaf_hash, read_heads
from tests.ledger import samples
from tests.ledger.tampering import undone, unguarded

NOW, KEY, NEXT = samples.NOW, samples.KEY, samples.NEXT_KEY


def entries(conn):
    """Every transaction and seal with its place among the leaves, as the slow definition has it."""
    sealed = conn.execute(select(seal.c.hash, seal.c.id, seal.c.after_seq)).all()
    found = {heads.leaf_of_seal(row.id, row.after_seq): row.hash for row in sealed}
    for row in conn.execute(select(ledger_txn.c.hash, ledger_txn.c.seq)):
        before = sum((item.after_seq or 0) < row.seq for item in sealed)
        found[row.seq - 1 + before] = row.hash
    return [found[place] for place in range(len(found))]


def test_the_tree_only_grows_whatever_is_written(conn):
    roots, sizes = [], []
    samples.populate_first(conn)
    for act in (
        lambda: journal.post(conn, samples.credit_posting("more"), now=NOW),
        lambda: holds.place_hold(conn, "ada", None, "a question", now=NOW),
        lambda: samples.add_certificate(conn),
        lambda: journal.post(conn, samples.credit_posting("and more"), now=NOW),
    ):
        act()
        tree = heads.ledger_tree(conn)
        sizes.append(len(tree))
        roots.append(tree.root())
        assert [tree.inclusion(place, len(tree)) for place in (0, len(tree) - 1)]
        hashes = entries(conn)
        assert len(hashes) == len(tree)
        assert tree.root() == type(tree)(map(bytes.fromhex, hashes)).root()
    last = heads.ledger_tree(conn)
    assert [last.root(size) for size in sizes] == roots
    assert sizes == sorted(set(sizes))


def test_an_entry_is_named_by_its_place(conn):
    samples.populate_first(conn)
    posted = journal.post(conn, samples.credit_posting("more"), now=NOW)
    size = len(heads.ledger_tree(conn))
    assert heads.entry_at(conn, size - 1) == f"transaction {posted.txn_id}"
    assert heads.entry_at(conn, 0) == "provider 1"
    holds.place_hold(conn, "ada", None, "a question", now=NOW)
    assert heads.entry_at(conn, size) == "hold 1"


def test_a_seal_that_skips_back_in_the_order_is_refused_and_named(populated, populated_url):
    copied = (
        "INSERT INTO seal SELECT id + 1, table_name, row_id, row_sha256, hash, '{}', actor, {} FROM seal"
        " WHERE id = (SELECT max(id) FROM seal)"
    )
    for after in ("NULL", "0", "99"):
        with pytest.raises((DBAPIError, LedgerError), match="names the last transaction"), populated.write() as conn:
            conn.exec_driver_sql(copied.format("9" * 64, after))
    with unguarded(populated_url, undo=True) as conn:
        conn.exec_driver_sql("UPDATE seal SET after_seq = NULL WHERE id = (SELECT max(id) FROM seal)")
        assert [problem.message for problem in check_seals(conn)] == [
            "is not what was written: its fields do not have its hash"
        ]


def test_a_recorded_head_that_the_rows_do_not_have_is_named(raw):
    signed = heads.signed_heads(raw)[-1]
    other = str(signed.note).replace(f"\n{signed.size}\n", f"\n{signed.size - 1}\n")
    for change, said in (
        ({"note": "none"}, "its text is no signed head"),
        ({"size": signed.size - 1}, "its columns are not those of its text"),
        ({"note": other, "size": signed.size - 1}, "was not signed with a key"),
    ):
        with undone(raw):
            for name, value in change.items():
                raw.execute(text(f"UPDATE head SET {name} = :value"), {"value": value})
            assert [said in problem.message for problem in check_signed_heads(raw)] == [True]
    raw.exec_driver_sql(f"UPDATE seal SET hash = '{'7' * 64}' WHERE id = 2")
    assert "are not what was signed" in next(check_signed_heads(raw)).message


def test_signing_needs_the_active_key_and_repeats_itself(conn):
    with pytest.raises(LedgerError, match="not the active signing key"):
        heads.sign_head(conn, KEY, now=NOW)
    signing_keys.enter_key(conn, KEY.public_key(), now=NOW)
    first = heads.sign_head(conn, KEY, now=NOW)
    assert heads.sign_head(conn, KEY, now=NOW + timedelta(days=1)) == first
    assert read_heads(str(first.note)) == [first]
    signing_keys.rotate_key(conn, KEY, NEXT.public_key(), now=NOW)
    with pytest.raises(LedgerError, match="not the active signing key"):
        heads.sign_head(conn, KEY, now=NOW)
    assert heads.sign_head(conn, NEXT, now=NOW).size > first.size
    assert heads.head_over(heads.signed_heads(conn), first.size) == first
    assert heads.head_over(heads.signed_heads(conn), 10**9) is None


def test_a_ledger_keeps_its_name(conn):
    default = signing_keys.enter_key(conn, KEY.public_key(), now=NOW)
    assert default.origin.startswith("credit/")
    signing_keys.revoke_key(conn, default.public_key, reason="lost", now=NOW)
    with pytest.raises(LedgerError, match="stays so"):
        signing_keys.enter_key(conn, NEXT.public_key(), now=NOW, origin="example.com/other")
    assert signing_keys.enter_key(conn, NEXT.public_key(), now=NOW).origin == default.origin


@pytest.mark.parametrize("name", ["a b", "a+b", "a\nb", "x" * 201, "credit.manifest.v1"])
def test_a_name_that_a_note_cannot_have_is_refused(conn, name):
    with pytest.raises(LedgerError, match="is no name of a ledger"):
        signing_keys.enter_key(conn, KEY.public_key(), now=NOW, origin=name)


def test_a_rotation_that_the_old_key_did_not_sign_is_named(populated, populated_url):
    with populated.write() as conn:
        signing_keys.rotate_key(conn, KEY, NEXT.public_key(), now=NOW)
        assert list(check_signing_keys(conn)) == []
    with unguarded(populated_url, undo=True) as conn:
        conn.exec_driver_sql("UPDATE signing_key SET succession = 'AAAA' WHERE id = 2")
        (problem,) = check_signing_keys(conn)
    assert "was not named by the key before it" in problem.message


def test_seals_from_before_heads_come_first(database_url, ledger):
    with ledger.write() as conn:
        samples.populate_first(conn)
    with unguarded(database_url, undo=True) as conn:
        conn.exec_driver_sql("UPDATE seal SET after_seq = NULL")
        first = conn.execute(select(seal.c.hash).where(seal.c.id == 2)).scalar_one()
        count = conn.execute(text("SELECT count(*) FROM seal")).scalar_one()
        tree = heads.ledger_tree(conn)
        assert tree.inclusion(0, 2) == [leaf_hash(bytes.fromhex(first))]
        assert heads.entry_at(conn, count) == "transaction 1"
