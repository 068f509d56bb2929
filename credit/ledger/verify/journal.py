"""Checks of the journal: the chain of transactions, their entries, and the accounts that entries name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, select

from credit.errors import LedgerError
from credit.ledger.accounts import parse_account
from credit.ledger.journal import HashedFields, chain_hash
from credit.ledger.schema import account, ledger_entry, ledger_txn, provider
from credit.ledger.values import GENESIS
from credit.ledger.verify.report import Problem

_STREAM = {"yield_per": 5000}

_NO_MORE: tuple[int | None, list[Row[Any]]] = (None, [])

_START = HashedFields(GENESIS, 0, 0, "", "", "", "", "", "", None, "", "")
"""HashedFields before that of the first transaction."""


def check_journal(conn: Connection) -> Iterator[Problem]:
    """Yield each transaction that breaks the chain, was changed or does not balance, and each entry without one.

    Transactions and entries are walked side by side, each in stored order.
    """
    keys = {number: key for number, key in conn.execute(select(account.c.id, account.c.key))}
    columns = [ledger_txn.c[name] for name in HashedFields._fields]
    headers = select(ledger_txn.c.hash, ledger_txn.c.id, *columns).order_by(ledger_txn.c.seq)
    lines = _entries_by_transaction(conn)
    number, entries = next(lines, _NO_MORE)
    before, head = _START, GENESIS
    for digest, txn_id, *fields in conn.execute(headers, execution_options=_STREAM):
        header = HashedFields(*fields)
        while number is not None and number < header.seq:
            yield from _orphans(entries)
            number, entries = next(lines, _NO_MORE)
        own: Sequence[Row[Any]] = ()
        if number == header.seq:
            own = entries
            number, entries = next(lines, _NO_MORE)
        fault = _misplaced(header, txn_id, before, head) or _changed(header, digest, own, keys)
        if fault is not None:
            yield Problem(f"transaction {header.seq}", fault)
        before, head = header, digest
    while number is not None:
        yield from _orphans(entries)
        number, entries = next(lines, _NO_MORE)


def _entries_by_transaction(conn: Connection) -> Iterator[tuple[int | None, list[Row[Any]]]]:
    """Yield the entries of one transaction after the other, with the transaction's id; few are in memory at a time."""
    query = select(ledger_entry).order_by(ledger_entry.c.txn_id, ledger_entry.c.line_no)
    for number, rows in groupby(conn.execute(query, execution_options=_STREAM), lambda row: row.txn_id):
        yield number, list(rows)


def _orphans(entries: Sequence[Row[Any]]) -> Iterator[Problem]:
    for row in entries:
        yield Problem(f"entry {row.txn_id}/{row.line_no}", "belongs to no transaction")


def _misplaced(header: HashedFields, txn_id: int, before: HashedFields, head: str) -> str | None:
    """Return the fault in a transaction's place in the chain; None where it follows the one before."""
    if header.seq != before.seq + 1 or txn_id != header.seq:
        return f"follows transaction {before.seq}: one is missing or out of order"
    if header.prev_hash != head:
        return f"does not continue the chain: prev_hash is not the hash of transaction {before.seq}"
    if header.recorded_at < before.recorded_at:
        return f"was recorded at {header.recorded_at}, before transaction {before.seq} at {before.recorded_at}"
    return None


def _changed(header: HashedFields, digest: str, entries: Sequence[Row[Any]], keys: dict[int, str]) -> str | None:
    """Return the fault in a transaction's content; None where it has the hash with which it was posted."""
    if [row.line_no for row in entries] != list(range(1, header.entry_count + 1)):
        return f"has {len(entries)} entries; its header says {header.entry_count}"
    sums: dict[str, int] = {}
    for row in entries:
        sums[row.commodity] = sums.get(row.commodity, 0) + row.amount
    if any(sums.values()):
        return f"does not balance: its sums are {sums}"
    keyed = [(keys.get(row.account_id, ""), row.commodity, row.amount) for row in entries]
    if chain_hash(header, keyed) != digest or any(row.entry_count != header.entry_count for row in entries):
        return "is not what was posted: its fields and entries do not have its hash"
    return None


def check_accounts(conn: Connection) -> Iterator[Problem]:
    """Yield each account whose columns differ from what its key says."""
    query = select(account, provider.c.key.label("owner")).outerjoin(provider).order_by(account.c.id)
    for row in conn.execute(query):
        try:
            parsed = parse_account(row.key)
        except LedgerError as error:
            yield Problem(f"account {row.id}", str(error))
            continue
        if (parsed.kind, parsed.provider, parsed.collection) != (row.kind, row.owner, row.collection):
            yield Problem(f"account {row.id}", f"its columns are not those of its key {row.key}")
