"""Tables of the double entry itself: periods, accounts, transactions and their entries; and seals of other rows."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)

from credit.ledger.accounts import AccountKind
from credit.ledger.schema.columns import (
    BIG,
    TEXT,
    big,
    day,
    in_period,
    metadata,
    moment,
    one_of,
    ref,
    row_id,
    sha256,
    text,
    word,
)
from credit.ledger.values import MAX_AMOUNT

period = Table(
    "period",
    metadata,
    Column("id", TEXT, CheckConstraint("id LIKE '____-__'", name="id"), primary_key=True),
    one_of("status", "open", "closed"),
    moment("opened_at"),
    moment("closed_at", nullable=True),
    text("close_policy_json", nullable=True),
    CheckConstraint("(status = 'closed') = (closed_at IS NOT NULL)", name="closed_when"),
    CheckConstraint("(status = 'closed') = (close_policy_json IS NOT NULL)", name="closed_how"),
    sqlite_strict=True,
)

account = Table(
    "account",
    metadata,
    row_id(),
    word("key"),
    one_of("kind", *AccountKind),
    ref("provider_id", "provider.id", nullable=True),
    text("collection", nullable=True),
    UniqueConstraint("key"),
    Index(None, "provider_id"),
    sqlite_strict=True,
)

ledger_txn = Table(
    "ledger_txn",
    metadata,
    row_id(),
    big("seq"),
    Column("entry_count", BIG, CheckConstraint("entry_count >= 2", name="entry_count"), nullable=False),
    word("kind"),
    in_period(),
    word("idempotency_key"),
    sha256("input_sha256"),
    day("effective_on"),
    moment("recorded_at"),
    ref("reverses_txn_id", "ledger_txn.id", nullable=True),
    text("memo"),
    text("details_json"),
    sha256("prev_hash"),
    sha256("hash"),
    CheckConstraint("id = seq", name="id_is_seq"),
    CheckConstraint("reverses_txn_id < id", name="reverses_earlier"),
    UniqueConstraint("seq"),
    UniqueConstraint("idempotency_key"),
    UniqueConstraint("reverses_txn_id"),
    UniqueConstraint("prev_hash"),
    UniqueConstraint("hash"),
    UniqueConstraint("id", "entry_count"),
    Index(None, "period_id"),
    sqlite_strict=True,
)

ledger_entry = Table(
    "ledger_entry",
    metadata,
    big("txn_id"),
    big("line_no"),
    big("entry_count"),
    ref("account_id", "account.id"),
    word("commodity"),
    big("amount"),
    PrimaryKeyConstraint("txn_id", "line_no"),
    ForeignKeyConstraint(
        ["txn_id", "entry_count"],
        ["ledger_txn.id", "ledger_txn.entry_count"],
        deferrable=True,
        initially="DEFERRED",
    ),
    CheckConstraint("line_no BETWEEN 1 AND entry_count", name="line_no"),
    CheckConstraint(f"amount <> 0 AND amount >= -{MAX_AMOUNT}", name="amount"),
    Index(None, "account_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

seal = Table(
    "seal",
    metadata,
    row_id(),
    word("table_name"),
    # The key of the sealed row, as a number.
    big("row_id"),
    sha256("row_sha256"),
    sha256("prev_hash"),
    sha256("hash"),
    UniqueConstraint("hash"),
    Index(None, "table_name", "row_id"),
    sqlite_strict=True,
)
