"""Forgeries of an insider: somebody who can write the database, knows the code, and has the signing key.

Each forgery is a change behind the ledger's back. `rehash` then gives both chains the hashes of what they say now, as
the project's own functions compute them, and signs the recorded heads anew.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, text, update

from credit.ledger.columns import metadata
from credit.ledger.journal import HashedFields, chain_hash, entries_of
from credit.ledger.merkle import MerkleTree
from credit.ledger.outputs import content_sha256, output_called
from credit.ledger.rules import ERASABLE
from credit.ledger.schema import head, ledger_entry, ledger_txn, output, period, seal, statement
from credit.ledger.seals import row_number, row_sha256, seal_hash
from credit.ledger.values import GENESIS, utc_moment, utc_text
from credit.proofs import Note, NoteSignature, key_id, read_heads
from tests.ledger import samples

BANK, OTHER_BANK = "DE75512108001245126199", "GB33BUKB20201555555555"
_FAR = 10**6


def rehash(conn: Connection) -> None:
    """Hash both chains anew, and the hashes that transactions and statements repeat."""
    renamed: dict[str, str] = {}
    hashes: list[str] = []
    before = GENESIS
    posted = conn.execute(select(ledger_txn).order_by(ledger_txn.c.seq)).mappings().all()
    for row in posted:  # out of the way of the new hashes, which are unique too
        away = {"prev_hash": f"{row['id']:064d}", "hash": f"{row['id']:x>64}"}
        conn.execute(update(ledger_txn).where(ledger_txn.c.id == row["id"]).values(away))
    for row in posted:
        said = {**row, "prev_hash": before, "details_json": _renamed(row["details_json"], renamed)}
        lines = [(line.account, line.commodity, line.amount) for line in entries_of(conn, row["id"])]
        before = chain_hash(HashedFields(*(said[name] for name in HashedFields._fields)), lines)
        change = {"prev_hash": said["prev_hash"], "details_json": said["details_json"], "hash": before}
        conn.execute(update(ledger_txn).where(ledger_txn.c.id == row["id"]).values(change))
        renamed[row["hash"]] = before
        hashes.append(before)
    _rehash_seals(conn, renamed, hashes)


def _rehash_seals(conn: Connection, renamed: dict[str, str], hashes: list[str]) -> None:
    old = conn.execute(select(seal).order_by(seal.c.id)).mappings().all()
    last = {(row["table_name"], row["row_id"]): row["id"] for row in old}
    conn.execute(delete(seal))
    number, before = 0, GENESIS
    tree, grown = MerkleTree(), 0
    for row in old:
        after = row["after_seq"] or 0
        tree.extend(map(bytes.fromhex, hashes[grown:after]))
        grown = after
        of = _row(conn, metadata.tables[row["table_name"]], row["row_id"])
        if of is None and row["table_name"] not in {table.name for table in ERASABLE}:
            continue
        content = row["row_sha256"]
        if of is not None and last[row["table_name"], row["row_id"]] == row["id"]:
            said = _signed_anew(conn, of, tree) if row["table_name"] == head.name else of
            content = row_sha256(conn, row["table_name"], _said_anew(conn, row["table_name"], said, renamed))
        number += 1
        fresh = {**row, "id": number, "row_sha256": content, "prev_hash": before}
        before = seal_hash(*(fresh[name] for name in _HASHED))
        renamed[row["hash"]] = before
        conn.execute(insert(seal).values(**{**fresh, "hash": before}))
        tree.extend([bytes.fromhex(before)])


_HASHED = ("prev_hash", "id", "table_name", "row_id", "row_sha256", "actor", "after_seq")


def _said_anew(conn: Connection, name: str, row: Mapping[str, Any], renamed: Mapping[str, str]) -> Mapping[str, Any]:
    """A row; a statement gets the new hashes of the heads in it."""
    if name != statement.name:
        return row
    body = _renamed(row["body_json"], renamed)
    digest = hashlib.sha256(body.encode()).hexdigest()
    conn.execute(update(statement).where(statement.c.id == row["id"]).values(body_json=body, sha256=digest))
    return {**row, "body_json": body, "sha256": digest}


def _signed_anew(conn: Connection, row: Mapping[str, Any], tree: MerkleTree) -> Mapping[str, Any]:
    """A head, signed anew: the insider has the key too."""
    (old,) = read_heads(row["note"])
    text_ = f"{old.origin}\n{len(tree)}\n{base64.b64encode(tree.root()).decode()}\ntime {row['created_at']}\n"
    number = key_id(old.origin, samples.KEY.public_key())
    note = str(Note(text_, (NoteSignature(old.origin, number, samples.KEY.sign(text_.encode())),)))
    change = {"size": len(tree), "root": tree.root().hex(), "note": note}
    conn.execute(update(head).where(head.c.id == row["id"]).values(change))
    return {**row, **change}


def _row(conn: Connection, table: Table, number: int) -> Mapping[str, Any] | None:
    if table is period:
        rows = conn.execute(select(period)).mappings().all()
        return next((row for row in rows if row_number(row["id"]) == number), None)
    return conn.execute(select(table).where(table.c.id == number)).mappings().one_or_none()


def _renamed(said: str, renamed: Mapping[str, str]) -> str:
    for old, new in renamed.items():
        said = said.replace(old, new)
    return said


def _iban(conn: Connection) -> None:
    conn.execute(text("UPDATE provider_pii SET iban = :new WHERE iban = :old"), {"new": OTHER_BANK, "old": BANK})


def _close(conn: Connection) -> None:
    """The close of October, the last thing in the ledger, never was."""
    last = "(SELECT max(seq) FROM ledger_txn)"
    # What came before it stays, a payout of October among it.
    of_close = "seq > (SELECT max(txn_id) FROM payout_void) AND kind IN ('allocation', 'payout')"
    posted = f"(SELECT id FROM ledger_txn WHERE {of_close})"
    for said in (
        "DELETE FROM allocation WHERE period_id = '2026-10'",
        "DELETE FROM payout WHERE period_id = '2026-10' AND id NOT IN (SELECT payout_id FROM payout_void)",
        "DELETE FROM statement WHERE period_id = '2026-10'",
        f"DELETE FROM ledger_entry WHERE txn_id IN {posted}",
        f"DELETE FROM ledger_txn WHERE {of_close}",
        "UPDATE period SET status = 'open', closed_at = NULL, close_policy_json = NULL WHERE id = '2026-10'",
        f"UPDATE seal SET after_seq = {last} WHERE after_seq > {last}",
    ):
        conn.execute(text(said))


def _dates(conn: Connection) -> None:
    """Everything was recorded a day earlier."""
    for table in metadata.sorted_tables:
        for column in table.columns:
            if column.name not in {
                "recorded_at",
                "created_at",
                "opened_at",
                "closed_at",
                "registered_at",
                "ingested_at",
            }:
                continue
            for moment in conn.execute(select(column).where(column.is_not(None)).distinct()).scalars().all():
                earlier = utc_text(utc_moment(moment) - timedelta(days=1))
                conn.execute(update(table).where(column == moment).values({column.name: earlier}))


def _answer(conn: Connection) -> None:
    where = output.c.external_id == "out-2"  # the first one is purged
    conn.execute(update(output).where(where).values(completion="an answer that nobody got"))
    replaced = output_called(conn, "log:out-2")
    assert replaced is not None
    conn.execute(update(output).where(where).values(content_sha256=content_sha256(replaced.output)))


def _terms(conn: Connection) -> None:
    conn.execute(text("UPDATE contract_term SET valid_from = '2026-08-01', minimum_payout_minor = 0"))


def _inserted(conn: Connection) -> None:
    """A transaction in the middle of October: every later one gets the next number."""
    at = 4
    for column in _transaction_columns():
        table = column.table
        for change, least in ((_FAR, at), (1 - _FAR, at + _FAR)):
            values = {column.name: column + change}
            if table is ledger_txn and column.name == "id":
                values["seq"] = ledger_txn.c.seq + change
            conn.execute(update(table).where(column >= least).values(values))
    old = dict(conn.execute(select(ledger_txn).where(ledger_txn.c.id == at - 1)).mappings().one())
    unique = {name: f"{number}" * 64 for number, name in enumerate(("input_sha256", "prev_hash", "hash"), start=3)}
    fresh = {
        "id": at,
        "seq": at,
        "idempotency_key": "a gift",
        "kind": "adjustment",
        "reverses_txn_id": None,
        "entry_count": 2,
    }
    conn.execute(insert(ledger_txn).values({**old, **unique, **fresh, "details_json": "{}", "memo": ""}))
    accounts = conn.execute(text("SELECT id FROM account WHERE key IN ('money:payable:ada', 'money:payable:bell')"))
    for line, (account, amount) in enumerate(zip(accounts.scalars().all(), (-9, 9), strict=True), start=1):
        row = {"txn_id": at, "line_no": line, "entry_count": 2, "account_id": account, "commodity": "USD"}
        conn.execute(insert(ledger_entry).values({**row, "amount": amount}))


def _transaction_columns() -> list[Any]:
    """Columns that name a transaction; reversals after the transactions, which must stay the earlier ones."""
    found = [
        column
        for table in metadata.sorted_tables
        for column in table.columns
        if any(key.column.table is ledger_txn and key.column.name == "id" for key in column.foreign_keys)
    ]
    return [ledger_txn.c.id, seal.c.after_seq, *found]


FORGERIES: Mapping[str, Callable[[Connection], None]] = {
    "an IBAN replaced": _iban,
    "a close deleted": _close,
    "all dates moved": _dates,
    "an answer replaced after payment": _answer,
    "terms dated back": _terms,
    "a transaction inserted in the past": _inserted,
}
"""Each forgery by its name in SECURITY.md."""
