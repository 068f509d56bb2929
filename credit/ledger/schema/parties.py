"""Tables of providers: who they are, on what terms, what is held back, and what personal data there is of them."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, UniqueConstraint

from credit.ledger.schema.columns import (
    BIG,
    TEXT,
    count,
    currency,
    day,
    metadata,
    moment,
    one_of,
    ppm,
    ref,
    row_id,
    sha256,
    text,
    word,
)

provider = Table(
    "provider",
    metadata,
    row_id(),
    word("key"),
    text("name"),
    one_of("kind", "provider", "house"),
    moment("created_at"),
    UniqueConstraint("key"),
    sqlite_strict=True,
)

contract_term = Table(
    "contract_term",
    metadata,
    row_id(),
    ref("provider_id", "provider.id"),
    currency(),
    count("version"),
    day("valid_from"),
    day("valid_to", nullable=True),
    Column("supersedes", BIG, CheckConstraint("supersedes IN (0, 1)", name="supersedes"), nullable=False),
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
    CheckConstraint("valid_to >= valid_from", name="valid"),
    CheckConstraint("(reserve_ppm = 0) = (reserve_release_periods = 0)", name="reserve"),
    UniqueConstraint("provider_id", "currency", "version"),
    sqlite_strict=True,
)

hold = Table(
    "hold",
    metadata,
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
    sqlite_strict=True,
)

personal_event = Table(
    "personal_event",
    metadata,
    row_id(),
    ref("provider_id", "provider.id"),
    one_of("action", "set", "erased"),
    text("reason"),
    moment("recorded_at"),
    CheckConstraint("action = 'set' OR length(reason) >= 1", name="reason"),
    Index(None, "provider_id"),
    sqlite_strict=True,
)

# The only table whose rows may go. Each row is a version of a provider's details; it has the id of the event that
# set it, which stays, so that an erased version's id is never another's. The salt is drawn at random for the version
# and goes with it: without it the row's seal, which stays, tells nobody whether a guess at the details is right.
provider_pii = Table(
    "provider_pii",
    metadata,
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
    sqlite_strict=True,
)
