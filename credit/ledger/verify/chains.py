"""Checks of both chains: the journal with its entries and accounts, and the seals with the rows under them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, Table, func, select

from credit.errors import LedgerError
from credit.ledger import seals
from credit.ledger.accounts import parse_account
from credit.ledger.journal import HashedFields, chain_hash
from credit.ledger.schema import (
    account,
    ledger_entry,
    ledger_txn,
    period,
    proposal_details,
    provider,
    provider_pii,
    seal,
)
from credit.ledger.values import GENESIS
from credit.ledger.verify.report import Problem

_STREAM = {"yield_per": 2000}

_NO_MORE: tuple[int | None, list[Row[Any]]] = (None, [])

_START = HashedFields(GENESIS, 0, 0, "", "", "", "", "", "", None, "", "")
"""Fields before those of the first transaction."""


def check_journal(conn: Connection) -> Iterator[Problem]:
    """Yield each broken, changed or unbalanced transaction, and each entry without a transaction.

    One walk passes over transactions and entries side by side, each in stored order.
    """
    # Accounts are few; entries are many, and stream.
    keys = {number: key for number, key in conn.execute(select(account.c.id, account.c.key))}
    columns = [ledger_txn.c[name] for name in HashedFields._fields]
    headers = select(ledger_txn.c.hash, ledger_txn.c.id, *columns).order_by(ledger_txn.c.seq)
    lines = _entries_by_transaction(conn)
    number, entries = next(lines, _NO_MORE)
    # After a fault the walk goes on from the stored hash, which names one fault once.
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
    """Yield the id and the entries of one transaction after the other; few are in memory at a time."""
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
    if header.actor is None and before.actor is not None:
        return f"names no actor; every transaction since {before.seq} must"
    return None


def _changed(header: HashedFields, digest: str, entries: Sequence[Row[Any]], keys: dict[int, str]) -> str | None:
    """Return the fault in a transaction's content; None where its hash is right."""
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
    """Yield each account with columns other than its key says."""
    query = select(account, provider.c.key.label("owner")).outerjoin(provider).order_by(account.c.id)
    for row in conn.execute(query):
        try:
            parsed = parse_account(row.key)
        except LedgerError as error:
            yield Problem(f"account {row.id}", str(error))
            continue
        if (parsed.kind, parsed.provider, parsed.collection) != (row.kind, row.owner, row.collection):
            yield Problem(f"account {row.id}", f"its columns are not those of its key {row.key}")


def check_seals(conn: Connection) -> Iterator[Problem]:
    """Yield each changed seal, each break of their chain, and each seal of a table without seals."""
    last, head, before, after = 0, GENESIS, None, None
    posted = conn.execute(select(func.coalesce(func.max(ledger_txn.c.seq), 0))).scalar_one()
    known = {table.name for table in seals.SEALED}
    for row in conn.execute(select(seal).order_by(seal.c.id), execution_options=_STREAM):
        place = f"seal {row.id}"
        said = (row.prev_hash, row.id, row.table_name, row.row_id, row.row_sha256)
        if row.id != last + 1:
            yield Problem(place, f"follows seal {last}: one is missing or out of order")
        elif row.prev_hash != head:
            yield Problem(place, f"does not continue the chain: prev_hash is not the hash of seal {last}")
        elif seals.seal_hash(*said, row.actor, row.after_seq) != row.hash:
            yield Problem(place, "is not what was written: its fields do not have its hash")
        elif row.table_name not in known:
            yield Problem(place, f"is of {row.table_name}, a table without seals")
        elif row.actor is None and before is not None:
            yield Problem(place, f"names no actor; every seal since {last} must")
        else:
            yield from _out_of_order(place, row.after_seq, after, posted)
        last, head, before, after = row.id, row.hash, row.actor, row.after_seq


def _out_of_order(place: str, after: int | None, before: int | None, posted: int) -> Iterator[Problem]:
    """Check that a seal names no earlier transaction than the seal before it."""
    if after is None:
        if before is not None:
            yield Problem(place, "does not say after which transaction it was written, and the seal before does")
    elif after > posted:
        # The first seal after the gap says it for the others.
        if before is None or before <= posted:
            yield Problem(place, f"was written after transaction {after}, which is gone: the tail was cut off")
    elif after < (before or 0):
        yield Problem(place, f"says that it was written after transaction {after}, the seal before after {before}")


def check_sealed_rows(conn: Connection) -> Iterator[Problem]:
    """Yield each row unlike its last seal, each without a seal, and each seal without its row."""
    for table in seals.SEALED:
        yield from _periods(conn) if table is period else _rows(conn, table)


def _rows(conn: Connection, table: Table) -> Iterator[Problem]:
    query = select(table, seals.last_seal(table).label("sealed")).order_by(table.c.id)
    for row in conn.execute(query, execution_options=_STREAM).mappings():
        said = {name: value for name, value in row.items() if name != "sealed"}
        yield from _fault(conn, table, said, row["sealed"])
    # Seals of erased versions stay, so that a version put back still has a seal that fits.
    if table is provider_pii:
        for number in conn.execute(select(table.c.id).where(seals.erased(table.c.id)).order_by(table.c.id)).scalars():
            yield Problem(f"{table.name} {number}", "was erased, and somebody put it back")
    elif table is proposal_details:
        put_back = select(table.c.id).where(seals.erased_proposal(table.c.id)).order_by(table.c.id)
        for number in conn.execute(put_back).scalars():
            yield Problem(f"{table.name} {number}", "was erased, and somebody put it back")
    for number in conn.execute(seals.lost_rows(table)).scalars():
        yield Problem(f"{table.name} {number}", "is gone: credit wrote it, and somebody removed it")


def _periods(conn: Connection) -> Iterator[Problem]:
    """Check the periods apart: their key is text, and a seal keeps it as a number."""
    query = select(seal.c.row_id, seal.c.row_sha256).where(seal.c.table_name == period.name).order_by(seal.c.id)
    sealed: dict[int, str] = {number: digest for number, digest in conn.execute(query)}
    for row in conn.execute(select(period).order_by(period.c.id)).mappings():
        yield from _fault(conn, period, dict(row), sealed.pop(seals.row_number(row["id"]), None))
    for number in sorted(sealed):
        place = f"period {number // 100}-{number % 100:02d}"
        yield Problem(place, "is gone: credit wrote it, and somebody removed it")


def _fault(conn: Connection, table: Table, row: dict[str, Any], sealed: str | None) -> Iterator[Problem]:
    place = f"{table.name} {row['id']}"
    if sealed is None:
        yield Problem(place, "was not written by credit: it has no seal")
    elif seals.row_sha256(conn, table.name, row) != sealed:
        yield Problem(place, "is not what was written: it, or a row that belongs to it, was changed")
