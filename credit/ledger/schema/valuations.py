"""Tables of models, their indexes and what validations found of them, logged outputs, and the books that value them."""

from __future__ import annotations

from sqlalchemy import Index, PrimaryKeyConstraint, Table, UniqueConstraint

from credit.ledger.schema.columns import count, metadata, moment, one_of, ref, row_id, sha256, text, word

model = Table("model", metadata, row_id(), word("name"), UniqueConstraint("name"), sqlite_strict=True)

attribution_index = Table(
    "attribution_index",
    metadata,
    row_id(),
    ref("model_id", "model.id"),
    word("fingerprint"),
    text("manifest_json"),
    moment("registered_at"),
    UniqueConstraint("fingerprint"),
    sqlite_strict=True,
)

index_location = Table(
    "index_location",
    metadata,
    row_id(),
    ref("index_id", "attribution_index.id"),
    word("path"),
    moment("registered_at"),
    Index(None, "index_id"),
    sqlite_strict=True,
)

certificate = Table(
    "certificate",
    metadata,
    row_id(),
    ref("index_id", "attribution_index.id"),
    one_of("kind", "retraining", "quick"),
    sha256("sha256"),
    text("body_json"),
    moment("registered_at"),
    UniqueConstraint("sha256"),
    Index(None, "index_id"),
    sqlite_strict=True,
)

ingest_file = Table(
    "ingest_file",
    metadata,
    row_id(),
    sha256("sha256"),
    text("name"),
    text("format"),
    moment("ingested_at"),
    count("accepted"),
    count("duplicates"),
    count("quarantined"),
    sqlite_strict=True,
)

output = Table(
    "output",
    metadata,
    row_id(),
    text("source"),
    word("external_id"),
    ref("model_id", "model.id"),
    # Deferred: a file's row states its counts, which are known after its outputs are in.
    ref("ingest_file_id", "ingest_file.id", deferred=True),
    moment("occurred_at"),
    text("prompt"),
    text("messages_json", nullable=True),
    text("completion"),
    count("weight_micro"),
    sha256("content_sha256"),
    UniqueConstraint("source", "external_id"),
    Index(None, "occurred_at"),
    Index(None, "model_id", "id"),
    Index(None, "ingest_file_id"),
    sqlite_strict=True,
)

unvalued = Table(
    "unvalued",
    metadata,
    row_id(),
    ref("output_id", "output.id"),
    one_of("action", "unvalued", "restored"),
    word("reason"),
    ref("txn_id", "ledger_txn.id"),
    moment("recorded_at"),
    UniqueConstraint("txn_id"),
    Index(None, "output_id"),
    sqlite_strict=True,
)

compute_run = Table(
    "compute_run",
    metadata,
    row_id(),
    word("fingerprint"),
    ref("index_id", "attribution_index.id"),
    text("policy_json"),
    text("software_version"),
    moment("created_at"),
    UniqueConstraint("fingerprint"),
    sqlite_strict=True,
)

score_book = Table(
    "score_book",
    metadata,
    row_id(),
    sha256("sha256"),
    ref("compute_run_id", "compute_run.id"),
    count("output_count"),
    count("row_count"),
    count("byte_count"),
    moment("registered_at"),
    UniqueConstraint("sha256"),
    sqlite_strict=True,
)

valuation = Table(
    "valuation",
    metadata,
    ref("output_id", "output.id"),
    ref("index_id", "attribution_index.id"),
    ref("score_book_id", "score_book.id"),
    PrimaryKeyConstraint("output_id", "index_id"),
    Index(None, "score_book_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
