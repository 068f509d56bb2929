"""The ledger's tables, the same on SQLite and PostgreSQL down to the order of text.

Three choices keep results byte-identical on both engines:

- Moments and days are ISO 8601 text in UTC of fixed width (`utc_text`, `utc_moment`), so that they sort as text
  and no driver converts them.
- Text sorts by code point: PostgreSQL columns carry the collation "C", which is what SQLite does anyway.
- Every `id` is allocated by `next_id`, inside the transaction that uses it; a sequence would skip numbers that a
  failed transaction had drawn.

Rules that need more than one row are kept by triggers: see `credit.ledger.rules`.
"""

from __future__ import annotations

from credit.ledger.schema.columns import metadata
from credit.ledger.schema.expressions import exact_sum, join_sum, next_id
from credit.ledger.schema.journal import account, ledger_entry, ledger_txn, period, seal
from credit.ledger.schema.parties import contract_term, hold, personal_event, provider, provider_pii
from credit.ledger.schema.payouts import payout, payout_batch, payout_event
from credit.ledger.schema.settlement import allocation, fx_rate, issuer, pool, reserve, statement
from credit.ledger.schema.valuations import (
    attribution_index,
    certificate,
    compute_run,
    index_location,
    ingest_file,
    model,
    output,
    score_book,
    unvalued,
    valuation,
)

__all__ = [
    "REVISIONS",
    "account",
    "allocation",
    "attribution_index",
    "certificate",
    "compute_run",
    "contract_term",
    "exact_sum",
    "fx_rate",
    "hold",
    "index_location",
    "ingest_file",
    "issuer",
    "join_sum",
    "ledger_entry",
    "ledger_txn",
    "metadata",
    "model",
    "next_id",
    "output",
    "payout",
    "payout_batch",
    "payout_event",
    "period",
    "personal_event",
    "pool",
    "provider",
    "provider_pii",
    "reserve",
    "score_book",
    "seal",
    "statement",
    "unvalued",
    "valuation",
]

REVISIONS = ("0001",)
"""Every revision of the schema, oldest first, as in `migrations/versions`."""
