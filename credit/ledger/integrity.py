"""Recomputing everything that can be recomputed: `credit verify`.

One snapshot, in memory that does not grow with the number of rows. The chain proves that no transaction in it was
changed, inserted or removed, and the seals say the same of all other rows (see `credit.ledger.seals`). That the tail of
neither was cut off is told by the heads that statements carry, by payouts, whose rows name their transactions, and by
anybody who kept the heads that an earlier report named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, Row, func, select

from credit.errors import CreditError, IntegrityError
from credit.ledger import certificates, closechecks, crosschecks, paychecks, sealchecks, seals, set_aside
from credit.ledger.crosschecks import Problem
from credit.ledger.database import Ledger
from credit.ledger.journal import HashedFields, chain_hash
from credit.ledger.schema import account, ledger_entry, ledger_txn, metadata, score_book
from credit.ledger.score_books import book_path
from credit.ledger.values import GENESIS
from credit.storage import sha256_file

MAX_PROBLEMS = 20
"""Problems reported of each kind of check: the first ones name the place, thousands more would not help."""

_STREAM = {"yield_per": 5000}

Check = Callable[[Connection], Iterator[Problem]]

_FIRST: tuple[Check, ...] = (
    crosschecks.check_guards,
    crosschecks.check_storage,
    sealchecks.check_seals,
    sealchecks.check_sealed,
)
"""Checks that read nothing into what rows say, before the chain and all that do."""

_THEN: tuple[Check, ...] = (
    crosschecks.check_references,
    crosschecks.check_accounts,
    crosschecks.check_outputs,
    crosschecks.check_counts,
    set_aside.check_set_aside,
    closechecks.check_pools,
    closechecks.check_pooling,
    closechecks.check_allocations,
    closechecks.check_reserves,
    closechecks.check_conversions,
    closechecks.check_held,
    crosschecks.check_statements,
    certificates.check_certificates,
    paychecks.check_heads,
    paychecks.check_payouts,
    paychecks.check_batches,
    paychecks.check_events,
)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked, the last transaction's seq and hash, the last seal's hash, and what is wrong, in order."""

    checked: Mapping[str, int]
    chain_seq: int
    chain_head: str
    seal_head: str
    problems: tuple[Problem, ...]

    def raise_for_problems(self) -> None:
        """Raise IntegrityError naming the first bad place, when there is one."""
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise IntegrityError(f"{self.problems[0]}{more}")


def verify(ledger: Ledger, books: Path | None, *, heads: Sequence[str] = ()) -> VerifyReport:
    """Recompute the ledger: guards, chain, balances, references, hashes, sums, payouts and score book files.

    Args:
        ledger: the ledger.
        books: where the score books lie; None leaves the files unchecked.
        heads: of the chain of transactions or that of seals, as somebody kept them; they must be there still.
    """
    with ledger.read() as conn:
        chain = _Chain(conn)
        problems: list[Problem] = []
        for check in (*_FIRST, chain.check, *_THEN):
            problems += _asked(check, conn, problems)
        for head in heads:
            if not paychecks.in_chain(conn, head) and not seals.has_seal(conn, head):
                fault = f"the head {head[:16]} is not in it: its tail was cut off or replaced"
                problems.append(Problem("chain", fault))
        _, seal_head = seals.seal_head(conn)
        checked = {
            table.name: int(conn.execute(select(func.count()).select_from(table)).scalar_one())
            for table in metadata.sorted_tables
        }
        if books is not None:
            problems += islice(_check_books(conn, books), MAX_PROBLEMS)
            checked["score_book files"] = checked[score_book.name]
    return VerifyReport(checked, chain.seq, chain.head, seal_head, tuple(problems))


def _asked(check: Check, conn: Connection, found: Sequence[Problem]) -> list[Problem]:
    """Ask one kind of check; what was changed so that it cannot even be read is named by an earlier one."""
    problems: list[Problem] = []
    try:
        problems.extend(islice(check(conn), MAX_PROBLEMS))
    except (ArithmeticError, CreditError, LookupError, TypeError, ValueError) as error:
        if not found and not problems:
            raise
        problems.append(Problem(check.__name__.replace("_", " "), f"cannot go on: {error}"))
    return problems


class _Chain:
    """Walks transactions and entries side by side, each in its stored order."""

    def __init__(self, conn: Connection) -> None:
        self.seq = 0
        self.head = GENESIS
        self._recorded_at = ""
        self._accounts = {number: key for number, key in conn.execute(select(account.c.id, account.c.key))}

    def check(self, conn: Connection) -> Iterator[Problem]:
        """Yield what is wrong with the chain, from its start."""
        columns = [ledger_txn.c[name] for name in HashedFields._fields]
        query = select(ledger_txn.c.hash, ledger_txn.c.id, *columns).order_by(ledger_txn.c.seq)
        lines = _Lines(conn)
        for digest, number, *fields in conn.execute(query, execution_options=_STREAM):
            header = HashedFields(*fields)
            for orphan in lines.before(header.seq):
                yield Problem(f"entry {orphan.txn_id}/{orphan.line_no}", "belongs to no transaction")
            entries = lines.of(header.seq)
            fault = self._fault(header, number, digest, entries)
            if fault is not None:
                yield Problem(f"transaction {header.seq}", fault)
            self.seq, self.head, self._recorded_at = header.seq, digest, header.recorded_at
        for orphan in lines.before(None):
            yield Problem(f"entry {orphan.txn_id}/{orphan.line_no}", "belongs to no transaction")

    def _fault(self, header: HashedFields, number: int, digest: str, entries: list[Row[tuple[int, ...]]]) -> str | None:
        """Return the first thing that is wrong with a transaction, its place in the chain first."""
        return self._misplaced(header, number) or self._changed(header, digest, entries)

    def _misplaced(self, header: HashedFields, number: int) -> str | None:
        if header.seq != self.seq + 1 or number != header.seq:
            return f"follows transaction {self.seq}: one is missing or out of order"
        if header.prev_hash != self.head:
            return f"does not continue the chain: prev_hash is not the hash of transaction {self.seq}"
        if header.recorded_at < self._recorded_at:
            return f"was recorded at {header.recorded_at}, before transaction {self.seq} at {self._recorded_at}"
        return None

    def _changed(self, header: HashedFields, digest: str, entries: list[Row[tuple[int, ...]]]) -> str | None:
        if [row.line_no for row in entries] != list(range(1, header.entry_count + 1)):
            return f"has {len(entries)} entries; its header says {header.entry_count}"
        sums: dict[str, int] = {}
        for row in entries:
            sums[row.commodity] = sums.get(row.commodity, 0) + row.amount
        if any(sums.values()):
            return f"does not balance: its sums are {sums}"
        keyed = [(self._accounts.get(row.account_id, ""), row.commodity, row.amount) for row in entries]
        if chain_hash(header, keyed) != digest or any(row.entry_count != header.entry_count for row in entries):
            return "is not what was posted: its fields and entries do not have its hash"
        return None


class _Lines:
    """The entries of all transactions, one after the other, a few in memory."""

    def __init__(self, conn: Connection) -> None:
        query = select(ledger_entry).order_by(ledger_entry.c.txn_id, ledger_entry.c.line_no)
        self._rows = iter(conn.execute(query, execution_options=_STREAM))
        self._next = next(self._rows, None)

    def before(self, seq: int | None) -> Iterator[Row[tuple[int, ...]]]:
        """Yield the entries that come before those of transaction `seq` (None: all that are left)."""
        while self._next is not None and (seq is None or self._next.txn_id < seq):
            yield self._next
            self._next = next(self._rows, None)

    def of(self, seq: int) -> list[Row[tuple[int, ...]]]:
        """Return the entries of transaction `seq`."""
        found = []
        while self._next is not None and self._next.txn_id == seq:
            found.append(self._next)
            self._next = next(self._rows, None)
        return found


def _check_books(conn: Connection, folder: Path) -> Iterator[Problem]:
    query = select(score_book.c.sha256, score_book.c.byte_count).order_by(score_book.c.id)
    for digest, size in conn.execute(query):
        path = book_path(folder, digest)
        if not path.is_file():
            yield Problem(str(path), "is missing")
        elif path.stat().st_size != size:
            yield Problem(str(path), f"has {path.stat().st_size} bytes; {size} were registered")
        elif sha256_file(path) != digest:
            yield Problem(str(path), "does not have the SHA-256 of its name")
