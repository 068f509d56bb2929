"""The database itself refuses, whoever asks: every test here speaks raw SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import pytest
from sqlalchemy import Connection, UniqueConstraint, text

from credit.errors import LedgerError, PeriodClosedError
from credit.ledger import rules
from credit.ledger.database import Ledger
from credit.ledger.schema import metadata
from tests.conftest import ON_POSTGRESQL, ON_SQLITE
from tests.ledger import samples
from tests.ledger.tampering import INSERT_ENTRY

ROW_TABLES = (*rules.APPEND_ONLY, *rules.MUTABLE)
CHANGEABLE = {("provider", "name"), ("provider", "kind"), ("payout", "status")}
"""Columns with rules of their own, tested one by one below."""

COLUMNS = [
    pytest.param(table, column.name, id=f"{table.name}.{column.name}")
    for table in ROW_TABLES
    for column in table.columns
    if (table.name, column.name) not in CHANGEABLE
]

HEADER = (
    "INSERT INTO ledger_txn (id, seq, entry_count, kind, period_id, idempotency_key, input_sha256, effective_on,"
    " recorded_at, reverses_txn_id, memo, details_json, prev_hash, hash, actor) VALUES (:id, :seq, :entry_count, 'raw',"
    " :period, :key, :digest, '2026-10-05', :recorded, :reverses, '', '{}', :prev, :hash, :actor)"
)

PAIR = ((1, "CREDIT", -5), (2, "CREDIT", 5))
NOTHING = ", ''"
MOMENT = "2026-10-05T12:30:00.000000Z"
LINE = {"line": 1, "count": 2, "account": 1, "commodity": "CREDIT", "amount": 1}


@pytest.fixture(scope="module")
def populated(shared_database: Callable[..., str]) -> Iterator[Ledger]:
    """A ledger with something in every table; its tests write nothing that stays."""
    with Ledger.open(shared_database(holding=samples.populate)) as opened:
        yield opened


def refuse(ledger: Ledger, match: str, *statements: str, **values: object) -> None:
    """Assert that the last of some statements, or the commit after it, is refused; then undo them all."""
    with pytest.raises(LedgerError, match=match):
        run(ledger, *statements, **values)


def run(ledger: Ledger, *statements: str, **values: object) -> None:
    with ledger.write() as conn:
        for statement in statements:
            conn.execute(text(statement), values)


class Raw:
    """Writes a transaction by hand, each field as told."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        head = conn.execute(text("SELECT seq, hash FROM ledger_txn ORDER BY seq DESC LIMIT 1")).one()
        self.seq = head.seq + 1
        self.prev = head.hash

    def entry(self, line: int, amount: int, *, count: int = 2, commodity: str = "CREDIT", **changes: int) -> None:
        values = {"txn": self.seq, "line": line, "count": count, "account": line, "amount": amount}
        self.conn.execute(text(INSERT_ENTRY), {**values, "commodity": commodity, **changes})

    def header(self, **changes: object) -> None:
        values = {
            "id": self.seq,
            "seq": self.seq,
            "entry_count": 2,
            "period": samples.OCTOBER,
            "key": f"raw {self.seq}",
            "digest": "0" * 64,
            "recorded": MOMENT,
            "reverses": None,
            "prev": self.prev,
            "hash": f"{self.seq:064d}",
            "actor": "anna",
        }
        self.conn.execute(text(HEADER), {**values, **changes})


def write(
    conn: Connection,
    lines: Sequence[tuple[int, str, int]] = PAIR,
    *,
    count: int | None = None,
    **header: object,
) -> None:
    """Write a transaction of (account, commodity, amount) lines; `count` is what the lines say, if not the header."""
    raw = Raw(conn)
    count = count or int(str(header.get("entry_count", 2)))
    for number, (account, commodity, amount) in enumerate(lines, start=1):
        raw.entry(number, amount, count=count, account=account, commodity=commodity)
    raw.header(**header)


def refuse_transaction(
    ledger: Ledger,
    match: str,
    lines: Sequence[tuple[int, str, int]] = PAIR,
    error: type[LedgerError] = LedgerError,
    **header: object,
) -> None:
    """Assert that a transaction is refused, when it is written or at its commit."""
    with pytest.raises(error, match=match):
        commit(ledger, lines, **header)


def commit(ledger: Ledger, lines: Sequence[tuple[int, str, int]], **header: object) -> None:
    with ledger.write() as conn:
        write(conn, lines, **header)


def test_a_correct_transaction_is_let_in(populated):
    with samples.undone(populated) as conn:
        write(conn)


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_no_column_can_be_updated(populated, table, column):
    changed = 999 if table.c[column].type.python_type is int else "2026-12"
    match = "append-only|stays closed|only change|stay as they are|only the status|has the status of its last event"
    refuse(populated, match, f"UPDATE {table.name} SET {column} = :changed", changed=changed)


@pytest.mark.parametrize("table", ROW_TABLES, ids=lambda table: table.name)
def test_no_row_can_be_deleted(populated, table):
    refuse(populated, "may be deleted", f"DELETE FROM {table.name}")


@pytest.mark.parametrize("table", ROW_TABLES, ids=lambda table: table.name)
def test_no_table_can_be_emptied(populated, engine_name, table):
    if engine_name == "postgresql":
        refuse(populated, "may be deleted", f"TRUNCATE {table.name} CASCADE")
    else:
        refuse(populated, "may be deleted", f"DELETE FROM {table.name} WHERE true")


@pytest.mark.parametrize("table", ROW_TABLES, ids=lambda table: table.name)
def test_no_row_can_be_replaced(populated, engine_name, table):
    """With the same keys and, where it has one, another value in a column that is part of no key."""
    with populated.read() as conn:
        row = dict(conn.execute(table.select().limit(1)).mappings().one())
    names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
    if engine_name == "sqlite":
        match = "exists already|period is closed|late entry|starts |next version|must follow|turns|pending or failed"
        refuse(populated, match, f"INSERT OR REPLACE INTO {table.name} ({names}) VALUES ({marks})", **row)
    else:
        key = ", ".join(column.name for column in table.primary_key)
        changes = ", ".join(f"{name} = excluded.{name}" for name in row)
        upsert = f"INSERT INTO {table.name} ({names}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {changes}"
        if table in rules.APPEND_ONLY or table.name == "period":
            refuse(populated, "refuses", upsert, **row)


@pytest.mark.parametrize(
    "table",
    [
        table
        for table in rules.APPEND_ONLY + rules.MUTABLE
        if any(isinstance(key, UniqueConstraint) and "id" not in key.columns for key in table.constraints)
    ],
    ids=lambda table: table.name,
)
@ON_SQLITE
def test_no_row_can_be_replaced_by_one_with_another_id(populated, table):
    # PostgreSQL has no REPLACE; its upserts are updates, which are tested above.
    with populated.read() as conn:
        row = {**conn.execute(table.select().limit(1)).mappings().one(), "id": 999}
    names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
    match = "exists already|period is closed|next version|must follow|starts pending|pending or failed|take turns"
    refuse(populated, match, f"INSERT OR REPLACE INTO {table.name} ({names}) VALUES ({marks})", **row)


@pytest.mark.parametrize(
    ("lines", "count", "match"),
    [
        pytest.param([(1, "CREDIT", -5), (2, "CREDIT", 4)], 2, "sum to zero", id="unbalanced"),
        pytest.param([(1, "USD", -5), (2, "EUR", 5)], 2, "sum to zero", id="balanced across commodities only"),
        pytest.param([(1, "CREDIT", 2**62)] * 4, 4, "sum to zero", id="zero in 64 bits only"),
        pytest.param([(1, "CREDIT", -5)], 2, "entry_count", id="an entry is missing"),
        pytest.param([], 2, "entry_count", id="no entries"),
    ],
)
def test_an_unsound_transaction_is_refused(populated, lines, count, match):
    refuse_transaction(populated, match, lines, entry_count=count)


def test_sums_beyond_64_bits_on_the_way_to_zero_are_let_in(populated):
    big = 2**63 - 1
    with samples.undone(populated) as conn:
        write(conn, [(1, "CREDIT", big)] * 3 + [(2, "CREDIT", -big)] * 3, entry_count=6)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"period": samples.SEPTEMBER}, "period is closed"),
        ({"period": "2031-01"}, "FOREIGN KEY|foreign key"),
        ({"id": 99, "seq": 99}, "entry_count|seq"),
        ({"seq": 99}, "seq must follow"),
        ({"id": 99}, "entry_count"),
        ({"prev": "1" * 64}, "prev_hash must be"),
        ({"prev": "0" * 64}, "prev_hash must be"),
        ({"recorded": "2026-10-05T12:29:59.999999Z"}, "before that of the last"),
        ({"key": "oct"}, "exists already|idempotency_key"),
        ({"reverses": 4711}, "the transaction to reverse does not exist"),
        ({"reverses": 2}, "already reversed"),
        ({"reverses": 1}, "must negate every entry"),
        ({"entry_count": 3}, "entry_count"),
        ({"entry_count": 1}, "entry_count"),
        ({"hash": "short"}, "ck_ledger_txn_hash"),
        ({"hash": "0" * 63 + "x", "digest": "short"}, "ck_ledger_txn_input_sha256"),
    ],
    ids=str,
)
def test_an_unsound_header_is_refused(populated, changes, match):
    refuse_transaction(populated, match, count=2, **changes)


def test_a_post_into_a_closed_period_is_an_error_of_its_own(populated):
    refuse_transaction(populated, "closed", error=PeriodClosedError, period=samples.SEPTEMBER)


def test_a_reversal_with_another_account_is_refused(populated):
    lines = [(1, "CREDIT", 1_000_000), (3, "CREDIT", -600_000), (2, "CREDIT", -400_000)]
    refuse_transaction(populated, "must negate", lines, entry_count=3, reverses=1)


@pytest.mark.parametrize("line", [1, 3, 4])
def test_an_entry_is_late_once_its_transaction_is_committed(populated, line):
    late = {"txn": 1, "line": line, "count": 3, "account": 1, "commodity": "CREDIT", "amount": 1}
    refuse(populated, "late entry", INSERT_ENTRY, **late)


def test_entries_without_a_header_cannot_be_committed(populated):
    refuse(populated, r"FOREIGN KEY|foreign key", INSERT_ENTRY.replace(":txn", "99"), **LINE)


@pytest.mark.parametrize(("amount", "line"), [(0, 1), (-(2**63), 1), (1, 0), (1, 3)])
def test_an_entry_out_of_bounds_is_refused(populated, amount, line):
    refuse(populated, "ck_ledger_entry", INSERT_ENTRY.replace(":txn", "99"), **{**LINE, "amount": amount, "line": line})


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        (
            "UPDATE period SET status = 'open', closed_at = NULL, close_policy_json = NULL WHERE id = '2026-09'",
            "closed",
        ),
        ("UPDATE period SET close_policy_json = '{}' WHERE id = '2026-09'", "closed"),
        ("UPDATE period SET opened_at = closed_at WHERE id = '2026-09'", "closed"),
        ("UPDATE period SET id = '2027-01' WHERE id = '2026-10'", "only change"),
        ("UPDATE period SET status = 'closed' WHERE id = '2026-10'", "ck_period_closed"),
        ("UPDATE period SET opened_at = '2020-01-01T00:00:00.000000Z' WHERE id = '2026-10'", "only change"),
        ("DELETE FROM period WHERE id = '2026-09'", "deleted"),
        ("DELETE FROM period WHERE id = '2026-10'", "deleted"),
        (
            "INSERT INTO period SELECT '2027-01', status, opened_at, closed_at, '' FROM period WHERE closed_at > ''",
            "starts open",
        ),
        ("INSERT INTO pool VALUES (99, '2026-09', 'USD', 'late', 0, 0, 0, NULL)", "period is closed"),
        ("INSERT INTO allocation VALUES (99, '2026-09', 1, 1, 0, 0, 0, NULL)", "period is closed"),
        ("UPDATE provider SET kind = 'house' WHERE key = 'ada'", "keeps its kind"),
        ("UPDATE provider SET key = 'eve' WHERE key = 'ada'", "stay as they are"),
        ("UPDATE payout SET status = 'paid'", "has the status of its last event"),
        ("UPDATE payout SET status = 'pending'", "has the status of its last event"),
        (f"INSERT INTO payout_event VALUES (99, 1, 1, 'exported', 1, '', '', 1, '{MOMENT}')", "pending or failed"),
        ("UPDATE provider_pii SET town = 'Paris'", "cannot change"),
        ("DELETE FROM provider_pii", "only a recorded erasure"),
        (f"INSERT INTO provider_pii VALUES (9, 2{13 * NOTHING}, '{64 * '9'}')", "last event, which must have set them"),
        (f"INSERT INTO provider_pii VALUES (1, 3{13 * NOTHING}, '{64 * '9'}')", "last event, which must have set them"),
        ("UPDATE payout SET amount_minor = amount_minor + 1, status = 'exported'", "only the status"),
    ],
)
def test_periods_providers_and_payouts_change_only_as_agreed(populated, statement, match):
    refuse(populated, match, re.sub(":", r"\\:", statement))


PAID = f"INSERT INTO payout_event VALUES (2, 1, 1, 'paid', NULL, '', '', 1, '{MOMENT}')"
REACHED = "UPDATE payout SET status = 'paid' WHERE id = 1"
FAILED, BACK = (statement.replace("'paid'", "'failed'") for statement in (PAID, REACHED))


@pytest.mark.parametrize(
    ("statements", "match"),
    [
        ((PAID, REACHED, PAID.replace("(2,", "(3,")), "paid or fails once|exists already"),
        ((FAILED, BACK, FAILED.replace("(2,", "(3,").replace("'failed'", "'paid'")), "paid or fails once"),
        ((FAILED, BACK, FAILED.replace("(2,", "(3,")), "paid or fails once|exists already"),
        ((PAID, REACHED, FAILED.replace("(2, 1, 1,", "(3, 1, 9,")), "in its last batch"),
        ((PAID, PAID.replace("(2,", "(3,").replace("'paid'", "'failed'")), "must first take the status"),
        ((PAID, "UPDATE payout SET status = 'failed'"), "has the status of its last event"),
        ((PAID.replace("1, 1, 'paid'", "1, 9, 'paid'"),), "in its last batch"),
    ],
)
def test_a_payout_has_one_outcome_in_a_batch(populated, statements, match):
    refuse(populated, match, *(re.sub(":", r"\\:", statement) for statement in statements))


def test_a_payout_that_was_paid_can_come_back_once(populated):
    returned = FAILED.replace("(2,", "(3,")
    with samples.undone(populated) as conn:
        for statement in (PAID, REACHED, returned, BACK):
            conn.execute(text(re.sub(":", r"\\:", statement)))
    again = returned.replace("(3,", "(4,")
    for late in (again, again.replace("'failed'", "'paid'")):
        refused = (re.sub(":", r"\\:", item) for item in (PAID, REACHED, returned, BACK, late))
        refuse(populated, "paid or fails once|exists already", *refused)


def test_a_provider_may_be_renamed(populated):
    with samples.undone(populated) as conn:
        conn.execute(text("UPDATE provider SET name = 'Ada & Co' WHERE key = 'ada'"))


def test_every_table_is_guarded(populated):
    assert {table.name for table in (*ROW_TABLES, *rules.ERASABLE)} == set(metadata.tables)


IN_FRONT = {
    "a table of another schema": (
        "CREATE SCHEMA theirs",
        "CREATE TABLE theirs.hold AS SELECT * FROM hold WHERE false",
        "SET LOCAL search_path = theirs, public",
    ),
    "a temporary table": ("CREATE TEMPORARY TABLE hold AS SELECT * FROM public.hold WHERE false",),
    "a function of another schema": (
        "CREATE SCHEMA theirs",
        "CREATE FUNCTION theirs.substr(text, integer, integer) RETURNS text LANGUAGE sql AS $$ SELECT '9999-12' $$",
        "SET LOCAL search_path = theirs, pg_catalog, public",
    ),
}
AGAIN = "SELECT 99, provider_id, currency, 'hold', 'again', created_at, collection FROM public.hold WHERE id = 1"


@ON_POSTGRESQL
@pytest.mark.parametrize("way", IN_FRONT)
def test_what_a_session_puts_in_front_of_the_ledgers_own_does_not_fool_the_rules(populated, way):
    """Each would let a rule pass, if the rule looked by the search path of the session."""
    if "function" in way:
        closed = {"id": "99", "version": "version + 1", "valid_from": "'2026-09-01'", "supersedes": "1"}
        columns = [closed.get(column.name, column.name) for column in metadata.tables["contract_term"].columns]
        insert = f"INSERT INTO public.contract_term SELECT {', '.join(columns)} FROM public.contract_term WHERE id = 1"
        refuse(populated, "new terms begin after the last closed one", *IN_FRONT[way], insert)
    else:
        insert = f"INSERT INTO public.hold (id, provider_id, currency, action, reason, created_at, collection) {AGAIN}"
        refuse(populated, "a hold and its release take turns", *IN_FRONT[way], insert)
