"""The journal: balanced transactions, each posted once, in a chain of hashes; and the one join that reads them.

Python checks a posting first, so messages name it. The database has the last word (`rules`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, select

from credit.errors import IdempotencyError, LedgerError, PeriodClosedError
from credit.ledger.accounts import IN_CREDITS, parse_account
from credit.ledger.actor import actor_of
from credit.ledger.clock import recorded_moment
from credit.ledger.database import serialise_writers
from credit.ledger.providers import provider_ids
from credit.ledger.schema import account, ledger_entry, ledger_txn, period, provider
from credit.ledger.seals import add_rows
from credit.ledger.sql import exact_sum, insert_rows, join_sum, next_id
from credit.ledger.transaction_kinds import ReversalDetails, TransactionDetails, TransactionKind
from credit.ledger.values import GENESIS, MAX_AMOUNT, check_period, is_currency, is_storable, utc_text
from credit.records import CREDIT
from credit.storage import canonical_json, quoted

ENCODING = "credit.ledger.1"
"""First element of the hashed text: the name of this encoding, so that no other can be taken for it."""

WITH_ACTOR = "credit.ledger.2"
"""Encoding of a transaction that names its actor, as every one does since revision 0002."""

ENTRIES_AT_ONCE = 20_000
"""Entries written at a time: bounds memory; more are no faster."""

_KEYS_AT_ONCE = 500
"""Keys in one query: a database takes a limited number of parameters, SQLite's older versions 999."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a transaction: `amount` in micro-credits or minor units, signed, never zero."""

    account: str
    commodity: str
    amount: int


@dataclass(frozen=True, slots=True)
class Posting:
    """A transaction before it is posted.

    `effective_on` is the day of its effect, `period` the open period in which it counts. `details` become canonical
    JSON beside the text `memo`. `reverses` is the id of the transaction that this one reverses.
    """

    kind: str
    period: str
    effective_on: date
    idempotency_key: str
    entries: tuple[Entry, ...]
    memo: str = ""
    details: TransactionDetails | None = None
    reverses: int | None = None


@dataclass(frozen=True, slots=True)
class Posted:
    """A transaction in the ledger; `replayed` if an earlier call posted it."""

    txn_id: int
    seq: int
    hash: str
    replayed: bool


class HashedFields(NamedTuple):
    """The fields of a transaction without its hash, as stored, in the order of hashing."""

    prev_hash: str
    seq: int
    entry_count: int
    kind: str
    period_id: str
    idempotency_key: str
    input_sha256: str
    effective_on: str
    recorded_at: str
    reverses_txn_id: int | None
    memo: str
    details_json: str
    actor: str | None = None


_ENTRY_COLUMNS = ("txn_id", "line_no", "entry_count", "account_id", "commodity", "amount")
_HEADER_COLUMNS = ("id", *HashedFields._fields, "hash")

_LAST = select(ledger_txn.c.seq, ledger_txn.c.hash).order_by(ledger_txn.c.seq.desc()).limit(1)


def chain_hash(header: HashedFields, entries: Iterable[tuple[str, str, int]]) -> str:
    """Return the hash of a transaction: SHA-256 of a JSON array of its fields and of its entries in order.

    JSON in ASCII is unambiguous: strings are quoted and escaped, so no field runs into the next one. Entries are
    (account key, commodity, amount).
    """
    return _chain_hash(header, _entries_json(entries))


def input_sha256(posting: Posting) -> str:
    """Return the SHA-256 of a posting without its idempotency key."""
    return _input_sha256(posting, _lines_json(posting.entries), _details_json(posting))


# The two arrays are put together by hand, which takes a third of the time of the general encoder and gives the
# bytes of `canonical_json`; a test compares them.


def _entries_json(entries: Iterable[tuple[str, str, int]]) -> str:
    return "[" + ",".join([f"[{quoted(key)},{quoted(unit)},{amount}]" for key, unit, amount in entries]) + "]"


def _lines_json(entries: Iterable[Entry]) -> str:
    lines = [f"[{quoted(line.account)},{quoted(line.commodity)},{line.amount}]" for line in entries]
    return "[" + ",".join(lines) + "]"


def _details_json(posting: Posting) -> str:
    return canonical_json(posting.details.said()) if posting.details else "{}"


def _chain_hash(header: HashedFields, entries_json: str) -> str:
    prev, seq, count, kind, period_id, key, digest, effective, recorded, undone, memo, details, actor = header
    texts = ",".join(map(quoted, (kind, period_id, key, digest, effective, recorded)))
    # Without an actor in the older encoding: transactions from before actors keep their hashes.
    encoding, by = (ENCODING, "") if actor is None else (WITH_ACTOR, f"{quoted(actor)},")
    tail = f"{'null' if undone is None else undone},{quoted(memo)},{quoted(details)},{by}{entries_json}"
    content = f'["{encoding}",{quoted(prev)},{seq},{count},{texts},{tail}]'
    return hashlib.sha256(content.encode()).hexdigest()


def _input_sha256(posting: Posting, entries_json: str, details_json: str) -> str:
    content = (
        f'["{ENCODING}",{quoted(posting.kind)},{quoted(posting.period)},"{posting.effective_on.isoformat()}",'
        f"{entries_json},{quoted(posting.memo)},{details_json},"
        f"{'null' if posting.reverses is None else posting.reverses}]"
    )
    return hashlib.sha256(content.encode()).hexdigest()


def post(conn: Connection, posting: Posting, *, now: datetime) -> Posted:
    """Post one transaction; see `post_all`."""
    return post_all(conn, [posting], now=now)[0]


def post_all(conn: Connection, postings: Sequence[Posting], *, now: datetime) -> list[Posted]:
    """Post transactions in order, all or none, opening their periods on demand.

    A posting with a known idempotency key and the same input returns the first result.

    Args:
        conn: from `Ledger.write`.
        postings: the postings; new accounts are created from their keys.
        now: when the ledger records it, by the machine's clock; see `credit.ledger.clock`.

    Raises:
        LedgerError: a posting does not balance, has fewer than two entries, an amount of zero or beyond the limit, a
            key of no account, or an unknown provider.
        PeriodClosedError: the period of a new posting is closed.
        IdempotencyError: an idempotency key is known with another input.
    """
    for item in postings:
        _validate(item)
    # Before any read: else another writer could post the same key, or take the next place in the chain.
    serialise_writers(conn)
    known = _posted_before(conn, [item.idempotency_key for item in postings])
    seq, prev = chain_head(conn)
    recorded, actor = utc_text(recorded_moment(conn, now)), actor_of(conn)
    results: list[Posted] = []
    fresh: list[tuple[Posting, HashedFields, str]] = []
    for item in postings:
        lines = _lines_json(item.entries)
        details = _details_json(item)
        digest = _input_sha256(item, lines, details)
        first = known.get(item.idempotency_key)
        if first is None:
            seq += 1
            header = _header(item, digest, details, prev, seq, recorded, actor)
            prev = _chain_hash(header, lines)
            fresh.append((item, header, prev))
            results.append(Posted(seq, seq, prev, replayed=False))
            known[item.idempotency_key] = seq, prev, digest  # the same key may come again among these postings
        elif first[2] == digest:
            results.append(Posted(first[0], first[0], first[1], replayed=True))
        else:
            raise IdempotencyError(
                f"idempotency key {item.idempotency_key!r} belongs to transaction {first[0]} with other"
                " content; give a different transaction a key of its own"
            )
    if fresh:
        # Only new postings open periods: a replay is answered even after its period has closed.
        for name in sorted({item.period for item, _, _ in fresh}):
            ensure_period(conn, name, now=now)
        _write(conn, fresh)
    return results


def reverse(conn: Connection, txn_id: int, *, period: str, reason: str, now: datetime) -> Posted:
    """Reverse a transaction by its negation, in the open period `period`.

    The reversal takes effect on the day of the original, as if the original had never been; `recorded_at` tells since
    when the ledger knows. The same call again returns the first result.

    Raises:
        LedgerError: there is no such transaction, or the reason is missing.
        IdempotencyError: an earlier reversal has another reason or another period.
        PeriodClosedError: `period` is closed.
    """
    if not reason.strip():
        raise LedgerError(f"a reversal of transaction {txn_id} needs a reason")
    header = conn.execute(
        select(ledger_txn.c.effective_on, ledger_txn.c.kind, ledger_txn.c.hash).where(ledger_txn.c.id == txn_id)
    ).one_or_none()
    if header is None:
        raise LedgerError(f"there is no transaction {txn_id} to reverse")
    posting = Posting(
        kind=TransactionKind.REVERSAL,
        period=period,
        effective_on=date.fromisoformat(header.effective_on),
        idempotency_key=TransactionKind.REVERSAL.key(txn_id=txn_id),
        entries=tuple(Entry(line.account, line.commodity, -line.amount) for line in entries_of(conn, txn_id)),
        memo=reason,
        details=ReversalDetails(header.kind, header.hash),
        reverses=txn_id,
    )
    return post(conn, posting, now=now)


def journal_lines(*columns: ColumnElement[Any], owners: bool = False, transactions: bool = True) -> Select[Any]:
    """Return a query for lines of the journal: entries, each with its account and its transaction.

    Args:
        columns: what to select, from `ledger_entry`, `account`, `ledger_txn` and `provider`.
        owners: join the providers that own the accounts, which leaves out accounts that no provider owns.
        transactions: join the transactions; a sum over whole accounts is faster without them.
    """
    query = select(*columns).join_from(ledger_entry, account, account.c.id == ledger_entry.c.account_id)
    if transactions:
        query = query.join(ledger_txn, ledger_txn.c.id == ledger_entry.c.txn_id)
    if owners:
        query = query.join(provider, provider.c.id == account.c.provider_id)
    return query


def journal_sums(
    conn: Connection, *by: ColumnElement[Any], where: Sequence[ColumnElement[bool]], transactions: bool = True
) -> list[tuple[Any, ...]]:
    """Return the exact sums of amounts by the values of some columns, in the order of those, each as (*values, sum).

    The database adds up: as many rows come from it as there are combinations of values, whatever the number of entries.
    `by` and `where` take columns as `journal_lines` does; the providers are joined where `by` names one of theirs.
    """
    owners = any(column is provider.c.key for column in by)
    query = journal_lines(*by, *exact_sum(ledger_entry.c.amount), owners=owners, transactions=transactions)
    sums = conn.execute(query.where(*where).group_by(*by).order_by(*by))
    return [(*values, join_sum(high, low)) for *values, high, low in sums]


def entries_of(conn: Connection, txn_id: int) -> tuple[Entry, ...]:
    """Return the entries of a transaction in their order."""
    columns = (account.c.key, ledger_entry.c.commodity, ledger_entry.c.amount)
    lines = journal_lines(*columns, transactions=False).where(ledger_entry.c.txn_id == txn_id)
    return tuple(Entry(*line) for line in conn.execute(lines.order_by(ledger_entry.c.line_no)))


def ensure_period(conn: Connection, name: str, *, now: datetime) -> None:
    """Open the period `name` when it is new; PeriodClosedError when it, or a later one, is closed."""
    check_period(name)
    later = (period.c.status == "closed") & (period.c.id >= name)
    closed = conn.execute(select(func.max(period.c.id)).where(later)).scalar()
    if closed is not None:
        also = "" if closed == name else f", because {closed} is"
        raise PeriodClosedError(f"period {name} is closed{also}; post into a later period that is open")
    if conn.execute(select(period.c.status).where(period.c.id == name)).scalar() is None:
        add_rows(conn, period, [{"id": name, "status": "open", "opened_at": utc_text(now)}])


def chain_head(conn: Connection) -> tuple[int, str]:
    """Return seq and hash of the last transaction, or 0 and 64 zeros."""
    row = conn.execute(_LAST).one_or_none()
    return (0, GENESIS) if row is None else (row.seq, row.hash)


def in_chain(conn: Connection, digest: str) -> bool:
    """Return True if a transaction has this hash."""
    return conn.execute(select(ledger_txn.c.seq).where(ledger_txn.c.hash == digest)).scalar() is not None


def _header(
    item: Posting, digest: str, details_json: str, prev: str, seq: int, recorded: str, actor: str | None
) -> HashedFields:
    day, key = item.effective_on.isoformat(), item.idempotency_key
    # Plain text: a driver takes no list of texts and members of an enumeration together.
    said = (str(item.kind), item.period, key, digest, day, recorded, item.reverses, item.memo, details_json, actor)
    return HashedFields(prev, seq, len(item.entries), *said)


def _write(conn: Connection, fresh: list[tuple[Posting, HashedFields, str]]) -> None:
    """Write entries before headers, because the triggers of the header check the whole transaction."""
    ids = _account_ids(conn, {line.account for item, _, _ in fresh for line in item.entries})
    rows: list[tuple[object, ...]] = []
    heads: list[tuple[object, ...]] = []
    for item, header, digest in fresh:
        seq, count = header.seq, header.entry_count
        for number, line in enumerate(item.entries, start=1):
            rows.append((seq, number, count, ids[line.account], line.commodity, line.amount))
        heads.append((seq, *header, digest))
        if len(rows) >= ENTRIES_AT_ONCE:
            _flush(conn, rows, heads)
    if heads:
        _flush(conn, rows, heads)


def _account_ids(conn: Connection, keys: Iterable[str]) -> dict[str, int]:
    """Return the ids of accounts by key, and create new accounts; LedgerError when a provider is unknown."""
    # In one order: the ids of new accounts must not depend on the order of a set.
    wanted = sorted(set(keys))
    found = _known_accounts(conn, wanted)
    missing = [key for key in wanted if key not in found]
    if missing:
        parsed = [parse_account(key) for key in missing]
        owners = provider_ids(conn, {item.provider for item in parsed if item.provider is not None})
        first = next_id(conn, account)
        rows = [
            {
                "id": first + offset,
                "key": key,
                "kind": str(item.kind),
                "provider_id": None if item.provider is None else owners[item.provider],
                "collection": item.collection,
            }
            for offset, (key, item) in enumerate(zip(missing, parsed, strict=True))
        ]
        add_rows(conn, account, rows)
        found |= {str(row["key"]): first + offset for offset, row in enumerate(rows)}
    return found


def _known_accounts(conn: Connection, keys: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        query = select(account.c.key, account.c.id).where(account.c.key.in_(keys[start : start + _KEYS_AT_ONCE]))
        found.update({key: number for key, number in conn.execute(query)})
    return found


def _flush(conn: Connection, rows: list[tuple[object, ...]], heads: list[tuple[object, ...]]) -> None:
    insert_rows(conn, ledger_entry, _ENTRY_COLUMNS, rows)
    insert_rows(conn, ledger_txn, _HEADER_COLUMNS, heads)
    rows.clear()
    heads.clear()


def _posted_before(conn: Connection, keys: Sequence[str]) -> dict[str, tuple[int, str, str]]:
    """Return seq, hash and input_sha256 of the transactions with these idempotency keys, by key."""
    found: dict[str, tuple[int, str, str]] = {}
    columns = (ledger_txn.c.idempotency_key, ledger_txn.c.seq, ledger_txn.c.hash, ledger_txn.c.input_sha256)
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        for key, seq, digest, content in conn.execute(select(*columns).where(ledger_txn.c.idempotency_key.in_(some))):
            found[key] = seq, digest, content
    return found


def _validate(posting: Posting) -> None:
    where = f"posting {posting.idempotency_key!r}"
    if not posting.idempotency_key or not posting.kind:
        raise LedgerError(f"{where}: kind and idempotency key must not be empty")
    if not is_storable(posting.idempotency_key + posting.kind + posting.memo):
        raise LedgerError(f"{where} holds a character that a database cannot keep (NUL or half a surrogate pair)")
    if len(posting.entries) < 2:
        raise LedgerError(f"{where}: {len(posting.entries)} entries; a transaction has at least two")
    sums: dict[str, int] = {}
    for number, line in enumerate(posting.entries, start=1):
        key, commodity, amount = line.account, line.commodity, line.amount
        # Not isinstance: True is an int, and a numpy integer overflows.
        if type(amount) is not int or amount == 0 or abs(amount) > MAX_AMOUNT:
            raise LedgerError(
                f"{where}: entry {number} has the amount {amount!r}; it must be an integer other than zero,"
                f" of at most {MAX_AMOUNT}; find what made it so large, and take it back: credit transactions,"
                " credit reverse"
            )
        # Credits and money never meet in one account, so no sum of money can hold a credit.
        if (commodity == CREDIT) != key.startswith(IN_CREDITS):
            raise LedgerError(f"{where}: entry {number} puts {commodity} into {key}")
        sums[commodity] = sums.get(commodity, 0) + amount
    for commodity, total in sums.items():
        if total:
            raise LedgerError(f"{where} does not balance: {commodity} sums to {total}, not to 0")
        if commodity != CREDIT and not is_currency(commodity):
            raise LedgerError(f"{where}: {commodity!r} is neither {CREDIT} nor an ISO 4217 code such as USD")
