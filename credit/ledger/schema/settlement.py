"""Tables of what a close works with and what it decides: pools and shares in them, rates, reserves, statements."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Table, UniqueConstraint

from credit.ledger.schema.columns import (
    BIG,
    TEXT,
    count,
    currency,
    day,
    in_period,
    metadata,
    moment,
    ref,
    row_id,
    sha256,
    text,
    word,
)

pool = Table(
    "pool",
    metadata,
    row_id(),
    in_period(),
    currency(),
    word("reference"),
    count("gross_minor"),
    count("deductions_minor"),
    count("net_minor"),
    ref("txn_id", "ledger_txn.id", nullable=True),
    CheckConstraint("net_minor = gross_minor - deductions_minor", name="net"),
    CheckConstraint("(txn_id IS NULL) = (net_minor = 0)", name="posted"),
    UniqueConstraint("period_id", "currency", "reference"),
    sqlite_strict=True,
)

allocation = Table(
    "allocation",
    metadata,
    row_id(),
    in_period(),
    ref("pool_id", "pool.id"),
    ref("provider_id", "provider.id"),
    count("credit_micro"),
    count("total_credit_micro"),
    count("amount_minor"),
    ref("txn_id", "ledger_txn.id", nullable=True),
    CheckConstraint("credit_micro <= total_credit_micro", name="share"),
    CheckConstraint("(txn_id IS NULL) = (amount_minor = 0)", name="posted"),
    UniqueConstraint("pool_id", "provider_id"),
    Index(None, "period_id"),
    sqlite_strict=True,
)

reserve = Table(
    "reserve",
    metadata,
    row_id(),
    in_period(),
    ref("provider_id", "provider.id"),
    currency(),
    Column("amount_minor", BIG, CheckConstraint("amount_minor > 0", name="amount_minor"), nullable=False),
    Column("release_period", TEXT, CheckConstraint("release_period LIKE '____-__'", name="month"), nullable=False),
    ref("txn_id", "ledger_txn.id"),
    CheckConstraint("release_period > period_id", name="release_later"),
    UniqueConstraint("period_id", "provider_id", "currency"),
    Index(None, "release_period"),
    sqlite_strict=True,
)

statement = Table(
    "statement",
    metadata,
    row_id(),
    in_period(),
    ref("provider_id", "provider.id"),
    Column("version", BIG, CheckConstraint("version >= 1", name="version"), nullable=False),
    sha256("sha256"),
    text("body_json"),
    moment("created_at"),
    UniqueConstraint("period_id", "provider_id", "version"),
    sqlite_strict=True,
)

issuer = Table(
    "issuer",
    metadata,
    row_id(),
    word("name"),
    word("address"),
    text("legal"),
    moment("created_at"),
    sqlite_strict=True,
)

fx_rate = Table(
    "fx_rate",
    metadata,
    row_id(),
    day("on_day"),
    Column("base", TEXT, CheckConstraint("base LIKE '___'", name="base"), nullable=False),
    Column("quote", TEXT, CheckConstraint("quote LIKE '___' AND quote <> base", name="quote"), nullable=False),
    Column("version", BIG, CheckConstraint("version >= 1", name="version"), nullable=False),
    # The rate is the decimal number coefficient / 10^digits.
    Column("coefficient", BIG, CheckConstraint("coefficient >= 1", name="coefficient"), nullable=False),
    Column("digits", BIG, CheckConstraint("digits BETWEEN 0 AND 12", name="digits"), nullable=False),
    word("source"),
    moment("created_at"),
    UniqueConstraint("on_day", "base", "quote", "version"),
    sqlite_strict=True,
)
