"""The ledger's tables, the same on SQLite and PostgreSQL down to the order of text.

Three choices keep results byte-identical on both engines:

- Moments and days are ISO 8601 text in UTC of fixed width (`utc_text`, `utc_moment`), so that they sort as text
  and no driver converts them.
- Text sorts by code point: PostgreSQL columns carry the collation "C", which is what SQLite does anyway.
- Every `id` is allocated by `next_id`, inside the transaction that uses it; a sequence would skip numbers that a
  failed transaction had drawn.

Rules that need more than one row are kept by triggers: see `credit.ledger.guards`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    literal_column,
    select,
)

from credit.ledger.values import MAX_AMOUNT
from credit.records import PPM

REVISIONS = ("0001", "0002", "0003")
"""Every revision of the schema, oldest first, as in `migrations/versions`."""

ACCOUNT_KINDS = (
    "credits:issued",
    "credits:earned",
    "money:external",
    "money:pool",
    "money:payable",
    "money:payout",
    "money:reserve",
    "money:advance",
    "money:withholding",
    "money:fees",
    "money:escrow",
)
"""What an account can be; `credit.ledger.accounts` says what each of them holds."""

_MOMENT = "____-__-__T__:__:__.______Z"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

_BIG = BigInteger().with_variant(Integer(), "sqlite")
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def next_id(conn: Connection, table: Table) -> int:
    """Return the next free id of `table`; safe because `Ledger.write` lets in one writer at a time."""
    return int(conn.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one()) + 1


def exact_sum(column: ColumnElement[int]) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Return two sums that `join_sum` puts together, because SQLite's sum() fails beyond 64 bits."""
    high = func.sum(column.op(">>")(literal_column("32")))
    low = func.sum(column.op("&")(literal_column("4294967295")))
    return func.coalesce(high, 0), func.coalesce(low, 0)


def join_sum(high: int, low: int) -> int:
    """Return the total whose halves `exact_sum` selected."""
    return (int(high) << 32) + int(low)


def _id() -> Column[int]:
    return Column("id", _BIG, CheckConstraint("id >= 1", name="id"), primary_key=True, autoincrement=False)


def _ref(name: str, target: str, *, nullable: bool = False, deferred: bool = False) -> Column[int]:
    key: ForeignKey = ForeignKey(target, deferrable=True, initially="DEFERRED") if deferred else ForeignKey(target)
    return Column(name, _BIG, key, nullable=nullable)


def _big(name: str) -> Column[int]:
    return Column(name, _BIG, nullable=False)


def _count(name: str) -> Column[int]:
    return Column(name, _BIG, CheckConstraint(f"{name} >= 0", name=name), nullable=False)


def _ppm(name: str) -> Column[int]:
    return Column(name, _BIG, CheckConstraint(f"{name} BETWEEN 0 AND {PPM}", name=name), nullable=False)


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, _TEXT, nullable=nullable)


def _word(name: str) -> Column[str]:
    return Column(name, _TEXT, CheckConstraint(f"length({name}) >= 1", name=name), nullable=False)


def _sha256(name: str) -> Column[str]:
    return Column(name, _TEXT, CheckConstraint(f"length({name}) = 64", name=name), nullable=False)


def _moment(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, _TEXT, CheckConstraint(f"{name} LIKE '{_MOMENT}'", name=name), nullable=nullable)


def _day(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, _TEXT, CheckConstraint(f"{name} LIKE '____-__-__'", name=name), nullable=nullable)


def _period() -> Column[str]:
    return Column("period_id", _TEXT, ForeignKey("period.id"), nullable=False)


def _currency(*, nullable: bool = False) -> Column[str]:
    return Column("currency", _TEXT, CheckConstraint("currency LIKE '___'", name="currency"), nullable=nullable)


def _one_of(name: str, *values: str) -> Column[str]:
    options = ", ".join(f"'{value}'" for value in values)
    return Column(name, _TEXT, CheckConstraint(f"{name} IN ({options})", name=name), nullable=False)


provider = Table(
    "provider",
    metadata,
    _id(),
    _word("key"),
    _text("name"),
    _one_of("kind", "provider", "house"),
    _moment("created_at"),
    UniqueConstraint("key"),
    sqlite_strict=True,
)

contract_term = Table(
    "contract_term",
    metadata,
    _id(),
    _ref("provider_id", "provider.id"),
    _currency(),
    _count("version"),
    _day("valid_from"),
    _day("valid_to", nullable=True),
    Column("supersedes", _BIG, CheckConstraint("supersedes IN (0, 1)", name="supersedes"), nullable=False),
    _ppm("rate_ppm"),
    _count("minimum_payout_minor"),
    _ppm("reserve_ppm"),
    _count("reserve_release_periods"),
    _ppm("recoupment_ppm"),
    _ppm("withholding_ppm"),
    _count("fee_minor"),
    _text("agreement_reference"),
    _moment("created_at"),
    CheckConstraint("valid_to >= valid_from", name="valid"),
    CheckConstraint("(reserve_ppm = 0) = (reserve_release_periods = 0)", name="reserve"),
    UniqueConstraint("provider_id", "currency", "version"),
    sqlite_strict=True,
)

hold = Table(
    "hold",
    metadata,
    _id(),
    _ref("provider_id", "provider.id"),
    # NULL: all currencies.
    _currency(nullable=True),
    _one_of("action", "hold", "release"),
    _word("reason"),
    _moment("created_at"),
    Index(None, "provider_id"),
    sqlite_strict=True,
)

account = Table(
    "account",
    metadata,
    _id(),
    _word("key"),
    _one_of("kind", *ACCOUNT_KINDS),
    _ref("provider_id", "provider.id", nullable=True),
    _text("collection", nullable=True),
    UniqueConstraint("key"),
    Index(None, "provider_id"),
    sqlite_strict=True,
)

model = Table("model", metadata, _id(), _word("name"), UniqueConstraint("name"), sqlite_strict=True)

attribution_index = Table(
    "attribution_index",
    metadata,
    _id(),
    _ref("model_id", "model.id"),
    _word("fingerprint"),
    _text("manifest_json"),
    _moment("registered_at"),
    UniqueConstraint("fingerprint"),
    sqlite_strict=True,
)

index_location = Table(
    "index_location",
    metadata,
    _id(),
    _ref("index_id", "attribution_index.id"),
    _word("path"),
    _moment("registered_at"),
    Index(None, "index_id"),
    sqlite_strict=True,
)

ingest_file = Table(
    "ingest_file",
    metadata,
    _id(),
    _sha256("sha256"),
    _text("name"),
    _text("format"),
    _moment("ingested_at"),
    _count("accepted"),
    _count("duplicates"),
    _count("quarantined"),
    sqlite_strict=True,
)

output = Table(
    "output",
    metadata,
    _id(),
    _text("source"),
    _word("external_id"),
    _ref("model_id", "model.id"),
    # Deferred: a file's row states its counts, which are known after its outputs are in.
    _ref("ingest_file_id", "ingest_file.id", deferred=True),
    _moment("occurred_at"),
    _text("prompt"),
    _text("messages_json", nullable=True),
    _text("completion"),
    _count("weight_micro"),
    _sha256("content_sha256"),
    UniqueConstraint("source", "external_id"),
    Index(None, "occurred_at"),
    Index(None, "model_id", "id"),
    sqlite_strict=True,
)

compute_run = Table(
    "compute_run",
    metadata,
    _id(),
    _word("fingerprint"),
    _ref("index_id", "attribution_index.id"),
    _text("policy_json"),
    _text("software_version"),
    _moment("created_at"),
    UniqueConstraint("fingerprint"),
    sqlite_strict=True,
)

score_book = Table(
    "score_book",
    metadata,
    _id(),
    _sha256("sha256"),
    _ref("compute_run_id", "compute_run.id"),
    _count("output_count"),
    _count("row_count"),
    _count("byte_count"),
    _moment("registered_at"),
    UniqueConstraint("sha256"),
    sqlite_strict=True,
)

valuation = Table(
    "valuation",
    metadata,
    _ref("output_id", "output.id"),
    _ref("index_id", "attribution_index.id"),
    _ref("score_book_id", "score_book.id"),
    PrimaryKeyConstraint("output_id", "index_id"),
    Index(None, "score_book_id"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

period = Table(
    "period",
    metadata,
    Column("id", _TEXT, CheckConstraint("id LIKE '____-__'", name="id"), primary_key=True),
    _one_of("status", "open", "closed"),
    _moment("opened_at"),
    _moment("closed_at", nullable=True),
    _text("close_policy_json", nullable=True),
    CheckConstraint("(status = 'closed') = (closed_at IS NOT NULL)", name="closed_when"),
    CheckConstraint("(status = 'closed') = (close_policy_json IS NOT NULL)", name="closed_how"),
    sqlite_strict=True,
)

ledger_txn = Table(
    "ledger_txn",
    metadata,
    _id(),
    _big("seq"),
    Column("entry_count", _BIG, CheckConstraint("entry_count >= 2", name="entry_count"), nullable=False),
    _word("kind"),
    _period(),
    _word("idempotency_key"),
    _sha256("input_sha256"),
    _day("effective_on"),
    _moment("recorded_at"),
    _ref("reverses_txn_id", "ledger_txn.id", nullable=True),
    _text("memo"),
    _text("details_json"),
    _sha256("prev_hash"),
    _sha256("hash"),
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
    _big("txn_id"),
    _big("line_no"),
    _big("entry_count"),
    _ref("account_id", "account.id"),
    _word("commodity"),
    _big("amount"),
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

pool = Table(
    "pool",
    metadata,
    _id(),
    _period(),
    _currency(),
    _word("reference"),
    _count("gross_minor"),
    _count("deductions_minor"),
    _count("net_minor"),
    _ref("txn_id", "ledger_txn.id", nullable=True),
    CheckConstraint("net_minor = gross_minor - deductions_minor", name="net"),
    CheckConstraint("(txn_id IS NULL) = (net_minor = 0)", name="posted"),
    UniqueConstraint("period_id", "currency", "reference"),
    sqlite_strict=True,
)

allocation = Table(
    "allocation",
    metadata,
    _id(),
    _period(),
    _ref("pool_id", "pool.id"),
    _ref("provider_id", "provider.id"),
    _count("credit_micro"),
    _count("total_credit_micro"),
    _count("amount_minor"),
    _ref("txn_id", "ledger_txn.id", nullable=True),
    CheckConstraint("credit_micro <= total_credit_micro", name="share"),
    CheckConstraint("(txn_id IS NULL) = (amount_minor = 0)", name="posted"),
    UniqueConstraint("pool_id", "provider_id"),
    Index(None, "period_id"),
    sqlite_strict=True,
)

reserve = Table(
    "reserve",
    metadata,
    _id(),
    _period(),
    _ref("provider_id", "provider.id"),
    _currency(),
    Column("amount_minor", _BIG, CheckConstraint("amount_minor > 0", name="amount_minor"), nullable=False),
    Column("release_period", _TEXT, CheckConstraint("release_period LIKE '____-__'", name="month"), nullable=False),
    _ref("txn_id", "ledger_txn.id"),
    CheckConstraint("release_period > period_id", name="release_later"),
    UniqueConstraint("period_id", "provider_id", "currency"),
    Index(None, "release_period"),
    sqlite_strict=True,
)

statement = Table(
    "statement",
    metadata,
    _id(),
    _period(),
    _ref("provider_id", "provider.id"),
    Column("version", _BIG, CheckConstraint("version >= 1", name="version"), nullable=False),
    _sha256("sha256"),
    _text("body_json"),
    _moment("created_at"),
    UniqueConstraint("period_id", "provider_id", "version"),
    sqlite_strict=True,
)

payout = Table(
    "payout",
    metadata,
    _id(),
    _period(),
    _ref("provider_id", "provider.id"),
    _currency(),
    Column("amount_minor", _BIG, CheckConstraint("amount_minor > 0", name="amount_minor"), nullable=False),
    _one_of("status", "pending", "exported", "paid", "failed"),
    _ref("txn_id", "ledger_txn.id"),
    UniqueConstraint("period_id", "provider_id", "currency"),
    sqlite_strict=True,
)

personal_event = Table(
    "personal_event",
    metadata,
    _id(),
    _ref("provider_id", "provider.id"),
    _one_of("action", "set", "erased"),
    _text("reason"),
    _moment("recorded_at"),
    CheckConstraint("action = 'set' OR length(reason) >= 1", name="reason"),
    Index(None, "provider_id"),
    sqlite_strict=True,
)

# The only table whose rows may go. Each row is a version of a provider's details; it has the id of the event that
# set it, which stays, so that an erased version's id is never another's.
provider_pii = Table(
    "provider_pii",
    metadata,
    Column("id", _BIG, ForeignKey("personal_event.id"), primary_key=True, autoincrement=False),
    _ref("provider_id", "provider.id"),
    _text("legal_name"),
    _text("account_holder"),
    _one_of("receiver", "", "person", "institution"),
    _text("email"),
    _text("street"),
    _text("building"),
    _text("postcode"),
    _text("town"),
    _text("country"),
    _text("iban"),
    _text("bic"),
    _text("paypal"),
    _text("tax_id"),
    Index(None, "provider_id"),
    sqlite_strict=True,
)

payout_batch = Table(
    "payout_batch",
    metadata,
    _id(),
    _period(),
    _currency(),
    _one_of("format", "csv", "pain001", "paypal", "wise"),
    _word("reference"),
    _text("payer_json"),
    Column("payout_count", _BIG, CheckConstraint("payout_count >= 1", name="payout_count"), nullable=False),
    Column("amount_minor", _BIG, CheckConstraint("amount_minor >= 1", name="amount_minor"), nullable=False),
    _sha256("file_sha256"),
    _ref("txn_id", "ledger_txn.id"),
    _moment("created_at"),
    UniqueConstraint("reference"),
    Index(None, "period_id"),
    sqlite_strict=True,
)

payout_event = Table(
    "payout_event",
    metadata,
    _id(),
    _ref("payout_id", "payout.id"),
    _ref("batch_id", "payout_batch.id"),
    _one_of("status", "exported", "paid", "failed"),
    _ref("details_id", "personal_event.id", nullable=True),
    _text("reference"),
    _text("reason"),
    _ref("txn_id", "ledger_txn.id"),
    _moment("recorded_at"),
    CheckConstraint("(status = 'exported') = (details_id IS NOT NULL)", name="details"),
    UniqueConstraint("payout_id", "batch_id", "status"),
    Index(None, "batch_id"),
    sqlite_strict=True,
)
