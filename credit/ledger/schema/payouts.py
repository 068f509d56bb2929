"""Tables of money that leaves: payouts, the batches in which they leave, and what became of them."""

from __future__ import annotations

from typing import get_args

from sqlalchemy import CheckConstraint, Column, Index, Table, UniqueConstraint

from credit.ledger.schema.columns import (
    BIG,
    currency,
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
from credit.records import PaymentFormat

payout = Table(
    "payout",
    metadata,
    row_id(),
    in_period(),
    ref("provider_id", "provider.id"),
    currency(),
    Column("amount_minor", BIG, CheckConstraint("amount_minor > 0", name="amount_minor"), nullable=False),
    one_of("status", "pending", "exported", "paid", "failed"),
    ref("txn_id", "ledger_txn.id"),
    UniqueConstraint("period_id", "provider_id", "currency"),
    sqlite_strict=True,
)

payout_batch = Table(
    "payout_batch",
    metadata,
    row_id(),
    in_period(),
    currency(),
    one_of("format", *get_args(PaymentFormat)),
    word("reference"),
    text("payer_json"),
    Column("payout_count", BIG, CheckConstraint("payout_count >= 1", name="payout_count"), nullable=False),
    Column("amount_minor", BIG, CheckConstraint("amount_minor >= 1", name="amount_minor"), nullable=False),
    sha256("file_sha256"),
    ref("txn_id", "ledger_txn.id"),
    moment("created_at"),
    UniqueConstraint("reference"),
    Index(None, "period_id"),
    sqlite_strict=True,
)

payout_event = Table(
    "payout_event",
    metadata,
    row_id(),
    ref("payout_id", "payout.id"),
    ref("batch_id", "payout_batch.id"),
    one_of("status", "exported", "paid", "failed"),
    ref("details_id", "personal_event.id", nullable=True),
    text("reference"),
    text("reason"),
    ref("txn_id", "ledger_txn.id"),
    moment("recorded_at"),
    CheckConstraint("(status = 'exported') = (details_id IS NOT NULL)", name="details"),
    UniqueConstraint("payout_id", "batch_id", "status"),
    Index(None, "batch_id"),
    sqlite_strict=True,
)
