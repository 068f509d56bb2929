"""Rules of the database itself, against every client; `credit.ledger.triggers` makes triggers of them.

A `Rule` is a condition over NEW and OLD, in SQL for both engines, and the sentence of its refusal. `rules()` is the
whole list. One refusal is for SQLite alone: `INSERT OR REPLACE` deletes rows without firing a trigger, so the insert
itself is refused when one of its keys is taken.

A transaction is written entries first, header last. The header's rules judge the whole; afterwards the composite key
(txn_id, entry_count) with line_no in 1..entry_count leaves no room for another entry. That holds even
for an entry of a concurrent transaction, inserted before it could see the header.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Column, Table, UniqueConstraint

from credit.ledger import guards, roles, schema
from credit.ledger.accounts import AccountKind
from credit.ledger.transaction_kinds import TransactionKind
from credit.ledger.values import GENESIS

Dialect = Literal["sqlite", "postgresql"]
Event = Literal["INSERT", "UPDATE", "DELETE"]

REFUSED = "credit refuses: "
"""Start of every message of a trigger."""

PERIOD_CLOSED = "the period is closed"

APPEND_ONLY: tuple[Table, ...] = (
    schema.contract_term,
    schema.hold,
    schema.account,
    schema.model,
    schema.attribution_index,
    schema.index_location,
    schema.certificate,
    schema.review,
    schema.ingest_file,
    schema.call_identity,
    schema.span_link,
    schema.purge,
    schema.model_alias,
    schema.file_reading,
    schema.unvalued,
    schema.compute_run,
    schema.score_book,
    schema.valuation,
    schema.ledger_txn,
    schema.ledger_entry,
    schema.seal,
    schema.signing_key,
    schema.head,
    schema.pool,
    schema.allocation,
    schema.reserve,
    schema.fx_rate,
    schema.statement,
    schema.issuer,
    schema.personal_event,
    schema.red_flag_acceptance,
    schema.payout_batch,
    schema.payout_event,
    schema.payout_void,
    schema.approval_rule,
    schema.proposal,
    schema.approval,
)
MUTABLE: tuple[Table, ...] = (schema.provider, schema.period, schema.payout, schema.output)
"""Tables with columns that may change, under rules of their own; no row may be deleted."""
ERASABLE: tuple[Table, ...] = (schema.provider_pii, schema.proposal_details)
"""The tables of personal data: their rows may be deleted, under a rule, and never changed."""
PURGED = ("prompt", "messages_json", "completion", "salt", "purge_id")
"""Columns of an output that a purge changes: it empties all but the last."""
IN_A_PERIOD = ("pool", "allocation", "reserve")
"""Tables with rows of a period, all written before its close."""

_BASE = 2**32
_OF_THIS = "FROM ledger_entry WHERE txn_id = NEW.id"
_LAST_HASH = "(SELECT hash FROM ledger_txn ORDER BY seq DESC LIMIT 1)"
_LAST_SEAL = "(SELECT hash FROM seal ORDER BY id DESC LIMIT 1)"
_LAST_ACT = "(SELECT s.action FROM unvalued AS s WHERE s.output_id = {} ORDER BY s.id DESC LIMIT 1)"
_LAST_DAY = "9999-12-31"
_SAME_TERMS = "FROM contract_term AS t WHERE t.provider_id = NEW.provider_id AND t.currency = NEW.currency"
_CLOSED = "EXISTS (SELECT 1 FROM period WHERE id = NEW.period_id AND status = 'closed')"


@dataclass(frozen=True, slots=True)
class Rule:
    """Refuse `event` on `table` with `message` when `condition` holds (None: always), on one engine or both."""

    table: str
    event: Event
    message: str
    condition: str | None = None
    only: Dialect | None = None


def rules() -> Iterator[Rule]:
    """Yield every rule, in the order of a trigger's tests."""
    yield from _journal_rules()
    yield from _seal_rules()
    yield from _head_rules()
    yield from _period_rules()
    yield from _term_rules()
    yield from _unvalued_rules()
    yield from _mutable_rules()
    yield from _purge_rules()
    yield from _payment_rules()
    yield from _personal_rules()
    yield from _approval_rules()
    for table in APPEND_ONLY:
        yield Rule(table.name, "UPDATE", f"{table.name} is append-only: no row may be changed")
    for table in (*APPEND_ONLY, *MUTABLE):
        yield Rule(table.name, "DELETE", f"no row of {table.name} may be deleted")
        yield Rule(table.name, "INSERT", f"this row of {table.name} exists already", _key_taken(table), "sqlite")


def _key_taken(table: Table) -> str:
    primary = tuple(column.name for column in table.primary_key)
    uniques = [item.columns.keys() for item in table.constraints if isinstance(item, UniqueConstraint)]
    keys = [primary, *sorted(tuple(names) for names in uniques if not set(primary) <= set(names))]
    if table is schema.ledger_txn:
        # The journal's own rules let in no key of these that is taken: seq follows the last one, and id is seq.
        keys = [key for key in keys if key not in {("id",), ("seq",), ("prev_hash",), ("reverses_txn_id",)}]
    # A key with NULL in it is never equal, as in the unique key itself.
    tests = [" AND ".join(f"{name} = NEW.{name}" for name in key) for key in keys]
    found = "EXISTS (SELECT 1 FROM {} WHERE {})".format
    return " OR ".join(found(table.name, test) for test in tests)


def _differs(column: Column[Any]) -> str:
    """Return the condition that an update changes a column; NULL equals NULL."""
    if not column.nullable:
        return f"NEW.{column.name} <> OLD.{column.name}"
    # IS DISTINCT FROM would say it, but came to SQLite after STRICT tables did.
    empty = "0" if column.type.python_type is int else "''"
    return f"coalesce(NEW.{column.name}, {empty}) <> coalesce(OLD.{column.name}, {empty})"


def _journal_rules() -> Iterator[Rule]:
    yield Rule(
        "ledger_entry",
        "INSERT",
        "the transaction is complete and takes no late entry",
        "EXISTS (SELECT 1 FROM ledger_txn WHERE id = NEW.txn_id)",
    )
    header = {
        PERIOD_CLOSED: _CLOSED,
        "entry_count must be the number of entries": f"(SELECT count(*) {_OF_THIS}) <> NEW.entry_count",
        # Halves of 32 bits, because SQLite's sum() fails beyond 64 bits where PostgreSQL's does not.
        "the entries of every commodity must sum to zero": (
            f"EXISTS (SELECT 1 {_OF_THIS} GROUP BY commodity"
            f" HAVING sum(amount / {_BASE}) + sum(amount % {_BASE}) / {_BASE} <> 0"
            f" OR sum(amount % {_BASE}) % {_BASE} <> 0)"
        ),
        "seq must follow that of the last transaction": "NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM ledger_txn)",
        "prev_hash must be the hash of the last transaction": (f"NEW.prev_hash <> coalesce({_LAST_HASH}, '{GENESIS}')"),
        "recorded_at must not be before that of the last transaction": (
            "NEW.recorded_at < (SELECT recorded_at FROM ledger_txn ORDER BY seq DESC LIMIT 1)"
        ),
        "the transaction to reverse does not exist": (
            "NEW.reverses_txn_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ledger_txn WHERE id = NEW.reverses_txn_id)"
        ),
        # The unique key refuses it too; the rule names the reason.
        "the transaction is already reversed": (
            "NEW.reverses_txn_id IS NOT NULL"
            " AND EXISTS (SELECT 1 FROM ledger_txn WHERE reverses_txn_id = NEW.reverses_txn_id)"
        ),
        "a reversal must negate every entry of its transaction": (
            "NEW.reverses_txn_id IS NOT NULL AND (NEW.entry_count <>"
            " (SELECT entry_count FROM ledger_txn WHERE id = NEW.reverses_txn_id)"
            " OR EXISTS (SELECT 1 FROM ledger_entry AS n JOIN ledger_entry AS o"
            " ON o.txn_id = NEW.reverses_txn_id AND o.line_no = n.line_no WHERE n.txn_id = NEW.id"
            " AND (n.account_id <> o.account_id OR n.commodity <> o.commodity OR n.amount <> -o.amount)))"
        ),
    }
    released = f"FROM ledger_entry AS e JOIN account AS a ON a.id = e.account_id AND a.kind = '{AccountKind.HELD}'"
    # The last act on the collection decides: holds and releases are rows, never edited.
    last = (
        "(SELECT h.action FROM hold AS h WHERE h.provider_id = a.provider_id AND h.collection = a.collection"
        " ORDER BY h.id DESC LIMIT 1)"
    )
    header["a collection on hold keeps what it earned: release it first"] = (
        f"NEW.kind = '{TransactionKind.COLLECTION_RELEASE}'"
        f" AND EXISTS (SELECT 1 {released} WHERE e.txn_id = NEW.id AND {last} = 'hold')"
    )
    # Halves of 32 bits, as above: the sum of an account can be beyond 64 bits.
    high, low = f"sum(s.amount / {_BASE})", f"sum(s.amount % {_BASE})"
    account = "FROM ledger_entry AS s WHERE s.account_id = e.account_id AND s.commodity = e.commodity"
    whole = f"{high} + {low} / {_BASE}"
    overdrawn = f"(SELECT {whole} < 0 OR ({whole} = 0 AND {low} % {_BASE} < 0) {account})"
    taken = f"FROM ledger_entry AS e WHERE e.txn_id = NEW.id AND e.amount < 0 AND {overdrawn}"
    header["a remittance takes no more than there is"] = (
        f"NEW.kind = '{TransactionKind.REMITTANCE}' AND EXISTS (SELECT 1 {taken})"
    )
    header["it names no actor"] = "NEW.actor IS NULL"
    for message, condition in header.items():
        yield Rule("ledger_txn", "INSERT", message, condition)
    for message, condition in roles.refused_kinds():
        yield Rule("ledger_txn", "INSERT", message, condition, "postgresql")


def _seal_rules() -> Iterator[Rule]:
    yield Rule(
        "seal",
        "INSERT",
        "the id of a seal must follow that of the last one",
        "NEW.id <> (SELECT coalesce(max(id), 0) + 1 FROM seal)",
    )
    yield Rule(
        "seal",
        "INSERT",
        "prev_hash must be the hash of the last seal",
        f"NEW.prev_hash <> coalesce({_LAST_SEAL}, '{GENESIS}')",
    )
    yield Rule("seal", "INSERT", "it names no actor", "NEW.actor IS NULL")
    # Otherwise a later seal could stand before an earlier one in the tree, and nothing would extend an old head.
    yield Rule(
        "seal",
        "INSERT",
        "a seal names the last transaction before it",
        "NEW.after_seq IS NULL OR NEW.after_seq <> (SELECT coalesce(max(seq), 0) FROM ledger_txn)",
    )


def _head_rules() -> Iterator[Rule]:
    known = "EXISTS (SELECT 1 FROM signing_key AS k WHERE k.public_key = NEW.public_key)"
    again = "this key of signing_key exists already"
    yield Rule("signing_key", "INSERT", again, f"NEW.action <> 'revoked' AND {known}")
    yield Rule("signing_key", "INSERT", "only a known key is revoked", f"NEW.action = 'revoked' AND NOT {known}")
    yield Rule(
        "signing_key",
        "INSERT",
        "the ledger keeps its name",
        "NEW.origin <> coalesce((SELECT k.origin FROM signing_key AS k ORDER BY k.id LIMIT 1), NEW.origin)",
    )
    yield Rule(
        "head",
        "INSERT",
        "a head is at least as large as the one before",
        "NEW.size < (SELECT coalesce(max(size), 0) FROM head)",
    )


def _period_rules() -> Iterator[Rule]:
    # Periods compare as text: YYYY-MM sorts by time.
    for table in IN_A_PERIOD:
        yield Rule(table, "INSERT", PERIOD_CLOSED, _CLOSED)
    yield Rule("period", "INSERT", "a period starts open", "NEW.status <> 'open'")
    yield Rule(
        "period",
        "INSERT",
        f"{PERIOD_CLOSED}: a later one is closed already",
        "EXISTS (SELECT 1 FROM period WHERE id > NEW.id AND status = 'closed')",
    )
    yield Rule("period", "UPDATE", f"{PERIOD_CLOSED}: it stays closed, and as it is", "OLD.status = 'closed'")
    yield Rule(
        "period",
        "UPDATE",
        "the only change to a period is to close it",
        "NEW.status <> 'closed' OR NEW.id <> OLD.id OR NEW.opened_at <> OLD.opened_at",
    )
    yield Rule(
        "period",
        "UPDATE",
        "periods close in their order: an earlier one is open",
        "EXISTS (SELECT 1 FROM period WHERE id < NEW.id AND status = 'open')",
    )


def _term_rules() -> Iterator[Rule]:
    yield Rule(
        "contract_term",
        "INSERT",
        "new terms take the next version",
        f"NEW.version <> (SELECT coalesce(max(t.version), 0) + 1 {_SAME_TERMS})",
    )
    yield Rule(
        "contract_term",
        "INSERT",
        f"{PERIOD_CLOSED}: new terms begin after the last closed one",
        "EXISTS (SELECT 1 FROM period WHERE status = 'closed' AND id >= substr(NEW.valid_from, 1, 7))",
    )
    yield Rule(
        "contract_term",
        "INSERT",
        "the terms overlap others: mark them as superseding",
        # Terms without an end give way to those that begin later.
        f"NEW.supersedes = 0 AND EXISTS (SELECT 1 {_SAME_TERMS}"
        f" AND t.valid_from <= coalesce(NEW.valid_to, '{_LAST_DAY}')"
        f" AND coalesce(t.valid_to, '{_LAST_DAY}') >= NEW.valid_from"
        " AND NOT (t.valid_to IS NULL AND t.valid_from < NEW.valid_from))",
    )
    same_pair = "FROM fx_rate AS r WHERE r.on_day = NEW.on_day AND r.base = NEW.base AND r.quote = NEW.quote"
    yield Rule(
        "fx_rate",
        "INSERT",
        "a new rate takes the next version",
        f"NEW.version <> (SELECT coalesce(max(r.version), 0) + 1 {same_pair})",
    )
    yield Rule(
        "fx_rate",
        "INSERT",
        f"{PERIOD_CLOSED}: its rates stay as they are",
        "EXISTS (SELECT 1 FROM period WHERE status = 'closed' AND id >= substr(NEW.on_day, 1, 7))",
    )
    yield Rule(
        "hold",
        "INSERT",
        "a hold and its release take turns",
        # Both sides of '=' coalesced, because NULL = NULL is not true in SQL.
        "NEW.action = coalesce((SELECT action FROM hold WHERE provider_id = NEW.provider_id"
        " AND coalesce(currency, '') = coalesce(NEW.currency, '')"
        " AND coalesce(collection, '') = coalesce(NEW.collection, '') ORDER BY id DESC LIMIT 1), 'release')",
    )


def _unvalued_rules() -> Iterator[Rule]:
    last = _LAST_ACT.format("NEW.output_id")
    yield Rule(
        "unvalued",
        "INSERT",
        "unvaluing an output and restoring it take turns",
        f"NEW.action = coalesce({last}, 'restored')",
    )
    yield Rule(
        "unvalued",
        "INSERT",
        "a valued output cannot become unvalued",
        "NEW.action = 'unvalued' AND EXISTS (SELECT 1 FROM valuation AS v WHERE v.output_id = NEW.output_id)",
    )
    yield Rule(
        "unvalued",
        "INSERT",
        "an output without its texts stays unvalued: they were purged",
        "NEW.action = 'restored' AND EXISTS (SELECT 1 FROM output AS o WHERE o.id = NEW.output_id"
        " AND o.purge_id IS NOT NULL)",
    )
    yield Rule("valuation", "INSERT", "an unvalued output cannot be valued: restore it first", f"{last} = 'unvalued'")


def _mutable_rules() -> Iterator[Rule]:
    yield Rule(
        "provider",
        "UPDATE",
        "a provider's id, key and created_at stay as they are",
        "NEW.id <> OLD.id OR NEW.key <> OLD.key OR NEW.created_at <> OLD.created_at",
    )
    yield Rule(
        "provider",
        "UPDATE",
        "a credited provider keeps its kind",
        "NEW.kind <> OLD.kind AND EXISTS (SELECT 1 FROM account WHERE provider_id = OLD.id)",
    )
    # `status` alone is left out.
    unchanged = ("id", "period_id", "provider_id", "currency", "amount_minor", "txn_id")
    yield Rule(
        "payout",
        "UPDATE",
        "only the status of a payout may change",
        " OR ".join(f"NEW.{name} <> OLD.{name}" for name in unchanged),
    )


def _purge_rules() -> Iterator[Rule]:
    forbidden = (
        *(_differs(column) for column in schema.output.columns if column.name not in PURGED),
        "NEW.prompt <> ''",
        "NEW.completion <> ''",
        "NEW.messages_json IS NOT NULL",
        "NEW.salt IS NOT NULL",
        "OLD.purge_id IS NOT NULL",
        "NEW.purge_id IS NULL",
        "NEW.purge_id <> (SELECT max(id) FROM purge)",
        # A moment sorts after its own day, so `<` keeps the whole day of `before`.
        "NOT EXISTS (SELECT 1 FROM purge AS p WHERE p.id = NEW.purge_id AND OLD.occurred_at < p.before)",
    )
    message = "an output is append-only: the last purge on record may empty its texts, and nothing else"
    yield Rule("output", "UPDATE", message, " OR ".join(forbidden))
    pending = (
        "NOT EXISTS (SELECT 1 FROM valuation AS v WHERE v.output_id = NEW.id)",
        f"coalesce({_LAST_ACT.format('NEW.id')}, 'restored') <> 'unvalued'",
    )
    message = "the texts of a pending output stay until it is valued or taken out"
    yield Rule("output", "UPDATE", message, " AND ".join(pending))


def _payment_rules() -> Iterator[Rule]:
    last = "FROM payout_event AS e WHERE e.payout_id = {} ORDER BY e.id DESC LIMIT 1"
    yield Rule(
        "payout",
        "UPDATE",
        "a payout has the status of its last event",
        f"NEW.status <> coalesce((SELECT e.status {last.format('NEW.id')}), 'pending')",
    )
    yield Rule("payout", "INSERT", "a payout starts pending", "NEW.status <> 'pending'")
    now = "(SELECT status FROM payout WHERE id = NEW.payout_id)"
    yield Rule(
        "payout_event",
        "INSERT",
        "only a pending or failed payout can be exported",
        f"NEW.status = 'exported' AND {now} NOT IN ('pending', 'failed')",
    )
    yield Rule(
        "payout_event",
        "INSERT",
        "a void payout never leaves",
        "EXISTS (SELECT 1 FROM payout_void AS v WHERE v.payout_id = NEW.payout_id)",
    )
    yield Rule(
        "payout_void", "INSERT", "only a pending or failed payout can be voided", f"{now} NOT IN ('pending', 'failed')"
    )
    yield Rule(
        "payout_event",
        "INSERT",
        "a payout is paid or fails once, in its last batch; a paid one can still come back",
        f"NEW.status <> 'exported' AND (NOT ({now} = 'exported' OR ({now} = 'paid' AND NEW.status = 'failed'))"
        f" OR NEW.batch_id <> (SELECT e.batch_id {last.format('NEW.payout_id')}))",
    )
    yield Rule(
        "payout_event",
        "INSERT",
        "the payout must first take the status of its last event",
        f"coalesce((SELECT e.status {last.format('NEW.payout_id')}), 'pending') <> {now}",
    )


def _personal_rules() -> Iterator[Rule]:
    last_event = (
        "SELECT action FROM personal_event AS e WHERE e.provider_id = OLD.provider_id ORDER BY e.id DESC LIMIT 1"
    )
    yield Rule(
        schema.provider_pii.name,
        "INSERT",
        "personal details belong to their provider's last event, which must have set them",
        "NOT EXISTS (SELECT 1 FROM personal_event AS e WHERE e.id = NEW.id AND e.provider_id = NEW.provider_id"
        " AND e.action = 'set') OR EXISTS (SELECT 1 FROM personal_event AS e"
        " WHERE e.provider_id = NEW.provider_id AND e.id > NEW.id)",
    )
    yield Rule(
        schema.proposal_details.name,
        "INSERT",
        "personal details of a proposal come with it",
        "NEW.id <> (SELECT max(id) FROM proposal)"
        " OR NEW.provider_id <> coalesce((SELECT p.provider_id FROM proposal AS p WHERE p.id = NEW.id), 0)",
    )
    for table in ERASABLE:
        yield Rule(table.name, "INSERT", "these details exist already", _key_taken(table), "sqlite")
        yield Rule(table.name, "UPDATE", "personal details cannot change: set new ones, or erase all")
        yield Rule(
            table.name,
            "DELETE",
            "only a recorded erasure may delete personal details",
            f"coalesce(({last_event}), '') <> 'erased'",
        )
    yield Rule(
        "red_flag_acceptance",
        "INSERT",
        "a red flag is accepted for details that its provider has had",
        "NOT EXISTS (SELECT 1 FROM personal_event AS e WHERE e.id = NEW.details_id"
        " AND e.provider_id = NEW.provider_id AND e.action = 'set')",
    )


def _approval_rules() -> Iterator[Rule]:
    for table, event, message, condition in guards.refusals():
        yield Rule(table, event, message, condition)
    last_txn = "NEW.after_txn <> (SELECT coalesce(max(seq), 0) FROM ledger_txn)"
    for table in ("approval_rule", "approval"):
        yield Rule(table, "INSERT", "after_txn is the last transaction", last_txn)
    yield Rule(
        "proposal",
        "INSERT",
        "a preview is undone before anything is proposed",
        "EXISTS (SELECT 1 FROM proposal WHERE preview_of IS NOT NULL) OR NEW.preview_of <= NEW.id",
    )
    yield Rule(
        "proposal",
        "INSERT",
        "a proposal must follow the last one",
        "NEW.id <> (SELECT coalesce(max(id), 0) + 1 FROM proposal)",
    )
    of = "SELECT 1 FROM proposal AS p WHERE p.id = NEW.proposal_id AND"
    given = "NEW.decision = 'given' AND"
    yield Rule("approval", "INSERT", "an approval is of its proposal's action", f"EXISTS ({of} p.action <> NEW.action)")
    yield Rule(
        "approval",
        "INSERT",
        "nobody approves a proposal of their own",
        f"{given} EXISTS ({of} p.proposed_by = NEW.decided_by)",
    )
    yield Rule(
        "approval",
        "INSERT",
        "an approval covers as many rows as its proposal",
        f"{given} EXISTS ({of} p.row_count <> NEW.last_row - NEW.first_row + 1)",
    )
    for guard in guards.GUARDS:
        if guard.table != "period":  # a closed period stays as it is
            following = f"SELECT coalesce(max(id), 0) + 1 FROM {guard.table}"  # noqa: S608 - the schema's own name
            yield Rule(
                "approval",
                "INSERT",
                "an approval comes before what it approves",
                f"{given} NEW.action = '{guard.action}' AND NEW.first_row <> ({following})",
            )
    yield Rule(
        "approval",
        "INSERT",
        "nobody approves what the same database role proposed",
        f"{given} EXISTS ({of} p.role = NEW.role)",
        "postgresql",
    )
    for table in ("proposal", "approval"):
        yield Rule(
            table, "INSERT", "role is the role of the session", "NEW.role IS DISTINCT FROM session_user", "postgresql"
        )
        yield Rule(table, "INSERT", "SQLite has no roles", "NEW.role IS NOT NULL", "sqlite")
