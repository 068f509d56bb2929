"""The ledger's tables, the same on SQLite and PostgreSQL down to the order of text.

Three choices keep results byte-identical on both engines:

- Moments and days are ISO 8601 text in UTC of fixed width (`utc_text`, `utc_moment`): they sort as text, and no driver
  converts them.
- Text sorts by code point: PostgreSQL columns carry the collation "C", as SQLite's do anyway.
- `next_id` allocates every `id` inside the transaction that uses it. A sequence would skip the numbers of failed
  transactions.

Triggers keep the rules over more than one row: see `credit.ledger.rules`.
"""

from __future__ import annotations

from typing import get_args

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    UniqueConstraint,
)

from credit.ledger.accounts import AccountKind
from credit.ledger.columns import (
    BIG,
    TEXT,
    actor,
    big,
    checked,
    count,
    currency,
    day,
    in_period,
    integer,
    moment,
    one_of,
    ppm,
    pseudonym,
    ref,
    row_id,
    sha256,
    table,
    text,
    word,
)
from credit.ledger.columns import metadata as metadata  # noqa: PLC0414 - here it has all the tables
from credit.ledger.values import MAX_AMOUNT
from credit.records import PaymentFormat, VoidTo

REVISIONS = tuple(f"{number:04}" for number in range(1, 13))
"""Every revision of the schema, oldest first, as in `migrations/versions`."""

# The journal: periods, accounts, transactions and their entries; and the seals of all other rows.

period = table(
    "period",
    Column("id", TEXT, CheckConstraint("id LIKE '____-__'", name="id"), primary_key=True),
    one_of("status", "open", "closed"),
    moment("opened_at"),
    moment("closed_at", nullable=True),
    text("close_policy_json", nullable=True),
    CheckConstraint("(status = 'closed') = (closed_at IS NOT NULL)", name="closed_when"),
    CheckConstraint("(status = 'closed') = (close_policy_json IS NOT NULL)", name="closed_how"),
)

account = table(
    "account",
    row_id(),
    word("key"),
    one_of("kind", *AccountKind),
    ref("provider_id", "provider.id", nullable=True),
    text("collection", nullable=True),
    UniqueConstraint("key"),
    Index(None, "provider_id"),
)

ledger_txn = table(
    "ledger_txn",
    row_id(),
    big("seq"),
    integer("entry_count", ">= 2"),
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
    actor(),
    CheckConstraint("id = seq", name="id_is_seq"),
    CheckConstraint("reverses_txn_id < id", name="reverses_earlier"),
    UniqueConstraint("seq"),
    UniqueConstraint("idempotency_key"),
    UniqueConstraint("reverses_txn_id"),
    UniqueConstraint("prev_hash"),
    UniqueConstraint("hash"),
    UniqueConstraint("id", "entry_count"),
    Index(None, "period_id"),
)

ledger_entry = table(
    "ledger_entry",
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
    by_key=True,
)

seal = table(
    "seal",
    row_id(),
    word("table_name"),
    # The key of the sealed row, as a number.
    big("row_id"),
    sha256("row_sha256"),
    sha256("prev_hash"),
    sha256("hash"),
    actor(),
    # The last transaction when the seal was written, 0 where there was none. It puts both chains into one order.
    checked("after_seq", BIG, "{} >= 0", nullable=True),
    UniqueConstraint("hash"),
    Index(None, "table_name", "row_id"),
)

# Keys that sign heads and exports, and the heads that were signed.

signing_key = table(
    "signing_key",
    row_id(),
    one_of("action", "new", "rotated", "revoked"),
    word("public_key"),
    # The ledger's name in its heads.
    word("origin"),
    # Of a rotated key: the signature by which the key before named it.
    text("succession"),
    text("reason"),
    moment("created_at"),
    UniqueConstraint("public_key", "action"),
    CheckConstraint("(action = 'revoked') = (length(reason) >= 1)", name="revoked_why"),
    CheckConstraint("(action = 'rotated') = (length(succession) >= 1)", name="rotated_by"),
)

head = table(
    "head",
    row_id(),
    integer("size", ">= 1"),
    sha256("root"),
    word("note"),
    moment("created_at"),
)


# Providers: their terms, holds on their money, and the personal data about them.

provider = table(
    "provider",
    row_id(),
    word("key"),
    text("name"),
    one_of("kind", "provider", "house"),
    moment("created_at"),
    UniqueConstraint("key"),
)

contract_term = table(
    "contract_term",
    row_id(),
    ref("provider_id", "provider.id"),
    currency(),
    count("version"),
    day("valid_from"),
    day("valid_to", nullable=True),
    integer("supersedes", "IN (0, 1)"),
    ppm("rate_ppm"),
    count("minimum_payout_minor"),
    ppm("reserve_ppm"),
    count("reserve_release_periods"),
    ppm("recoupment_ppm"),
    ppm("withholding_ppm"),
    count("fee_minor"),
    text("agreement_reference"),
    moment("created_at"),
    Column(
        "pay_in",
        TEXT,
        CheckConstraint("pay_in = '' OR (pay_in LIKE '___' AND pay_in <> currency)", name="pay_in"),
        nullable=False,
        server_default="",
    ),
    one_of("channel", *get_args(PaymentFormat), nullable=True),
    CheckConstraint("valid_to >= valid_from", name="valid"),
    CheckConstraint("(reserve_ppm = 0) = (reserve_release_periods = 0)", name="reserve"),
    UniqueConstraint("provider_id", "currency", "version"),
)

hold = table(
    "hold",
    row_id(),
    ref("provider_id", "provider.id"),
    # NULL: all currencies.
    currency(nullable=True),
    one_of("action", "hold", "release"),
    word("reason"),
    moment("created_at"),
    # NULL: all that the provider is owed.
    Column(
        "collection",
        TEXT,
        CheckConstraint("collection IS NULL OR (length(collection) >= 1 AND currency IS NULL)", name="collection"),
    ),
    Index(None, "provider_id"),
)

personal_event = table(
    "personal_event",
    row_id(),
    ref("provider_id", "provider.id"),
    one_of("action", "set", "erased"),
    text("reason"),
    moment("recorded_at"),
    CheckConstraint("action = 'set' OR length(reason) >= 1", name="reason"),
    Index(None, "provider_id"),
)

# The only table whose rows may go. Each row is a version of a provider's details; it has the id of the event that
# set it, which stays, so that an erased version's id is never another's. The salt is drawn at random for the version
# and goes with it: without it the row's seal, which stays, tells nobody whether a guess at the details is right.
provider_pii = table(
    "provider_pii",
    Column("id", BIG, ForeignKey("personal_event.id"), primary_key=True, autoincrement=False),
    ref("provider_id", "provider.id"),
    text("legal_name"),
    text("account_holder"),
    one_of("receiver", "", "person", "institution"),
    text("email"),
    text("street"),
    text("building"),
    text("postcode"),
    text("town"),
    text("country"),
    text("iban"),
    text("bic"),
    text("paypal"),
    text("tax_id"),
    sha256("salt"),
    Index(None, "provider_id"),
)


# A red flag of a version of payment details that a person accepted: `credit.ledger.payee_accounts` names the signs.
red_flag_acceptance = table(
    "red_flag_acceptance",
    row_id(),
    ref("provider_id", "provider.id"),
    word("sign"),
    text("subject"),
    ref("details_id", "personal_event.id"),
    word("accepted"),
    moment("recorded_at"),
    Index(None, "provider_id"),
)


# Indexes with their certificates and reviews, logged outputs, and the score books with the values of outputs.

model = table("model", row_id(), word("name"), UniqueConstraint("name"))

attribution_index = table(
    "attribution_index",
    row_id(),
    ref("model_id", "model.id"),
    word("fingerprint"),
    text("manifest_json"),
    moment("registered_at"),
    UniqueConstraint("fingerprint"),
)

index_location = table(
    "index_location",
    row_id(),
    ref("index_id", "attribution_index.id"),
    word("path"),
    moment("registered_at"),
    Index(None, "index_id"),
)

certificate = table(
    "certificate",
    row_id(),
    ref("index_id", "attribution_index.id"),
    one_of("kind", "retraining", "quick"),
    sha256("sha256"),
    text("body_json"),
    moment("registered_at"),
    UniqueConstraint("sha256"),
    Index(None, "index_id"),
)

review = table(
    "review",
    row_id(),
    ref("index_id", "attribution_index.id"),
    one_of("kind", "overlap", "membership"),
    sha256("sha256"),
    text("body_json"),
    moment("registered_at"),
    UniqueConstraint("sha256"),
    Index(None, "index_id"),
)

ingest_file = table(
    "ingest_file",
    row_id(),
    sha256("sha256"),
    text("name"),
    text("format"),
    moment("ingested_at"),
    count("accepted"),
    count("duplicates"),
    count("quarantined"),
)

purge = table(
    "purge",
    row_id(),
    day("before"),
    integer("outputs", ">= 1"),
    word("reason"),
    moment("recorded_at"),
)

output = table(
    "output",
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
    pseudonym("user_hmac"),
    pseudonym("text_hmac"),
    # Line or row of the file; NULL in outputs of the first release.
    Column("line", BIG),
    # Deleted with the texts: without it, the content hash tells nobody whether a guess at them is right.
    text("salt", nullable=True),
    ref("purge_id", "purge.id", nullable=True),
    UniqueConstraint("source", "external_id"),
    Index(None, "occurred_at"),
    Index(None, "model_id", "id"),
    Index(None, "ingest_file_id"),
)

# Names in logs, or patterns of them, that stand for a model; of one pattern, the newest counts.
model_alias = table(
    "model_alias",
    row_id(),
    word("pattern"),
    ref("model_id", "model.id"),
    moment("created_at"),
    Index(None, "pattern"),
)

# How far each log file has been read.
file_reading = table(
    "file_reading",
    row_id(),
    word("path"),
    sha256("how"),
    count("size"),
    count("mtime_ns"),
    sha256("sha256"),
    # NULL: a later reading begins at the start.
    Column("finished_bytes", BIG),
    count("finished_lines"),
    count("quarantined"),
    count("unfinished"),
    moment("read_at"),
    Index(None, "path"),
)

# One call is one output: ids by which loggers know it, each of one output.
call_identity = table(
    "call_identity",
    row_id(),
    one_of("kind", "response", "request", "span"),
    # The trace of a span; empty for other ids.
    text("scope"),
    word("value"),
    # Index of the answer among those of the call.
    count("choice"),
    ref("output_id", "output.id"),
    # The file that told of it first.
    ref("ingest_file_id", "ingest_file.id", deferred=True),
    UniqueConstraint("kind", "scope", "value", "choice"),
    Index(None, "output_id"),
    Index(None, "ingest_file_id"),
)

# Spans of traces, calls of a model or not: a span that is no call ties two that are.
span_link = table(
    "span_link",
    row_id(),
    word("trace"),
    word("span"),
    text("parent"),
    integer("is_call", "IN (0, 1)"),
    ref("ingest_file_id", "ingest_file.id", deferred=True),
    UniqueConstraint("trace", "span", "parent", "is_call"),
    # With all that a walk down the spans asks for.
    Index(None, "trace", "parent", "span", "is_call"),
    Index(None, "ingest_file_id"),
)

unvalued = table(
    "unvalued",
    row_id(),
    ref("output_id", "output.id"),
    one_of("action", "unvalued", "restored"),
    word("reason"),
    ref("txn_id", "ledger_txn.id"),
    moment("recorded_at"),
    UniqueConstraint("txn_id"),
    Index(None, "output_id"),
)

compute_run = table(
    "compute_run",
    row_id(),
    word("fingerprint"),
    ref("index_id", "attribution_index.id"),
    text("policy_json"),
    text("software_version"),
    moment("created_at"),
    UniqueConstraint("fingerprint"),
)

score_book = table(
    "score_book",
    row_id(),
    sha256("sha256"),
    ref("compute_run_id", "compute_run.id"),
    count("output_count"),
    count("row_count"),
    count("byte_count"),
    moment("registered_at"),
    UniqueConstraint("sha256"),
)

valuation = table(
    "valuation",
    ref("output_id", "output.id"),
    ref("index_id", "attribution_index.id"),
    ref("score_book_id", "score_book.id"),
    PrimaryKeyConstraint("output_id", "index_id"),
    Index(None, "score_book_id"),
    by_key=True,
)


# A close: pools and their allocations, rates, reserves, statements.

pool = table(
    "pool",
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
)

allocation = table(
    "allocation",
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
)

reserve = table(
    "reserve",
    row_id(),
    in_period(),
    ref("provider_id", "provider.id"),
    currency(),
    integer("amount_minor", "> 0"),
    Column("release_period", TEXT, CheckConstraint("release_period LIKE '____-__'", name="month"), nullable=False),
    ref("txn_id", "ledger_txn.id"),
    CheckConstraint("release_period > period_id", name="release_later"),
    UniqueConstraint("period_id", "provider_id", "currency"),
    Index(None, "release_period"),
)

statement = table(
    "statement",
    row_id(),
    in_period(),
    ref("provider_id", "provider.id"),
    integer("version", ">= 1"),
    sha256("sha256"),
    text("body_json"),
    moment("created_at"),
    UniqueConstraint("period_id", "provider_id", "version"),
)

issuer = table(
    "issuer",
    row_id(),
    word("name"),
    word("address"),
    text("legal"),
    moment("created_at"),
)

fx_rate = table(
    "fx_rate",
    row_id(),
    day("on_day"),
    currency("base"),
    checked("quote", TEXT, "{0} LIKE '___' AND {0} <> base"),
    integer("version", ">= 1"),
    # The rate is the decimal number coefficient / 10^digits.
    integer("coefficient", ">= 1"),
    integer("digits", "BETWEEN 0 AND 12"),
    word("source"),
    moment("created_at"),
    UniqueConstraint("on_day", "base", "quote", "version"),
)


# Payouts, the batches in which they leave, and each step that they make.

payout = table(
    "payout",
    row_id(),
    in_period(),
    ref("provider_id", "provider.id"),
    currency(),
    integer("amount_minor", "> 0"),
    one_of("status", "pending", "exported", "paid", "failed"),
    ref("txn_id", "ledger_txn.id"),
    UniqueConstraint("period_id", "provider_id", "currency"),
)

payout_batch = table(
    "payout_batch",
    row_id(),
    in_period(),
    currency(),
    one_of("format", *get_args(PaymentFormat)),
    word("reference"),
    text("payer_json"),
    integer("payout_count", ">= 1"),
    integer("amount_minor", ">= 1"),
    sha256("file_sha256"),
    ref("txn_id", "ledger_txn.id"),
    moment("created_at"),
    UniqueConstraint("reference"),
    Index(None, "period_id"),
)

payout_event = table(
    "payout_event",
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
)

# Payouts that must never be paid; the payout itself keeps the status of its last event.
payout_void = table(
    "payout_void",
    row_id(),
    ref("payout_id", "payout.id"),
    one_of("goes_to", *get_args(VoidTo)),
    word("reason"),
    ref("txn_id", "ledger_txn.id"),
    moment("recorded_at"),
    UniqueConstraint("payout_id"),
)


# Two pairs of eyes: actions that need an approval, proposals, and decisions on them.

approval_rule = table(
    "approval_rule",
    row_id(),
    word("action"),
    integer("required", "IN (0, 1)"),
    # The last transaction before: the rule holds for all later ones.
    count("after_txn"),
    moment("created_at"),
)

proposal = table(
    "proposal",
    row_id(),
    word("action"),
    text("arguments_json"),
    text("summary"),
    # Digest of everything that the action would do.
    sha256("facts_sha256"),
    count("row_count"),
    ref("provider_id", "provider.id", nullable=True),
    word("proposed_by"),
    text("role", nullable=True),
    moment("created_at"),
    # A preview is a row that refers to a proposal to come. Nobody can commit it: the reference is looked up at the
    # commit, and no proposal is taken after a preview.
    ref("preview_of", "proposal.id", nullable=True, deferred=True),
)

# Personal data in a proposal; its rows go with an erasure. `salt` as in `provider_pii`.
proposal_details = table(
    "proposal_details",
    Column("id", BIG, ForeignKey("proposal.id"), primary_key=True, autoincrement=False),
    ref("provider_id", "provider.id"),
    text("body_json"),
    sha256("salt"),
    Index(None, "provider_id"),
)

approval = table(
    "approval",
    row_id(),
    ref("proposal_id", "proposal.id"),
    one_of("decision", "given", "refused"),
    word("action"),
    # The rows that it lets in, by number; see `guards`. None where it was refused.
    count("first_row"),
    count("last_row"),
    count("after_txn"),
    word("decided_by"),
    text("role", nullable=True),
    text("reason"),
    moment("created_at"),
    UniqueConstraint("proposal_id"),
)
