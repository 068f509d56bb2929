"""Roles for PostgreSQL: the SQL that a database's owner runs once, and again after an upgrade.

The four are group roles without login; a person's own role becomes a member. Grants say which tables a role writes. A
rule of the ledger adds the kinds of transactions: who may not record payouts posts no payments, and who may not add
pools posts nothing else (`refused_kinds`). The owner of the tables alone upgrades, and erases personal data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from credit.errors import InvalidRequestError
from credit.ledger.schema import metadata
from credit.ledger.transaction_kinds import TransactionKind
from credit.ledger.views import VIEWS

_PAYMENTS = frozenset({"payout_batch", "payout_event", "payout_void", "red_flag_acceptance"})
_JOURNAL = frozenset({"account", "ledger_txn", "ledger_entry", "period", "seal"})
_PROPOSED = frozenset({"proposal", "proposal_details"})


@dataclass(frozen=True, slots=True)
class Role:
    """A role: what it is for, the tables that it adds rows to, and the columns that it may change."""

    name: str
    purpose: str
    inserts: frozenset[str]
    updates: Mapping[str, tuple[str, ...]]


def roles() -> tuple[Role, ...]:
    """Return the four roles."""
    everything = frozenset(metadata.tables)
    kept = {"provider": ("name", "kind"), "period": ("status", "closed_at", "close_policy_json")}
    paid = {"payout": ("status",)}
    # To lock a period against its close, PostgreSQL asks for the right to change it. The rules refuse this change.
    locked = {"period": ("opened_at",)}
    return (
        Role("auditor", "reads, verifies, reports", frozenset(), {}),
        Role("operator", "runs the ledger, and proposes", everything - _PAYMENTS - {"approval"}, kept),
        Role(
            "payer", "exports payments and records the bank's results", _PAYMENTS | _JOURNAL | _PROPOSED, paid | locked
        ),
        Role("approver", "approves what others propose, and does it", everything, kept | paid),
    )


def refused_kinds() -> Iterator[tuple[str, str]]:
    """Yield message and condition of each refusal of a transaction whose kind is not its role's business."""
    payments = ", ".join(f"'{kind}'" for kind in TransactionKind if kind.posted_by == "payment")
    for message, kinds, table in (
        ("this role records no payments", f"IN ({payments})", "payout_event"),
        ("this role posts payments alone", f"NOT IN ({payments})", "pool"),
    ):
        yield message, f"NEW.kind {kinds} AND NOT has_table_privilege('{table}', 'INSERT')"


def roles_sql(prefix: str) -> str:
    """Return the SQL that makes the roles, named `prefix_auditor` and so on, and grants them their rights.

    Raises:
        InvalidRequestError: the prefix is no plain name.
    """
    if not (prefix.isascii() and prefix.isidentifier() and prefix == prefix.lower() and len(prefix) <= 40):
        raise InvalidRequestError(f"{prefix!r} is no prefix of roles: use lower-case letters, digits and _")
    return "\n".join(_statements(prefix)) + "\n"


def _statements(prefix: str) -> Iterator[str]:
    found = roles()
    names = ", ".join(f"{prefix}_{role.name}" for role in found)
    tables = ", ".join((*sorted(metadata.tables), *sorted(VIEWS)))
    yield "-- Roles of a ledger of credit. Run it as the owner of its tables, and again after every credit init:"
    yield "--     credit roles | psql --single-transaction -v ON_ERROR_STOP=1 DATABASE"
    yield f"-- Then make people members of one role each: GRANT {prefix}_operator TO anna;"
    for role in found:
        name = f"{prefix}_{role.name}"
        known = f"SELECT 1 FROM pg_roles WHERE rolname = '{name}'"  # noqa: S608 - a checked name
        yield f"DO $$ BEGIN IF NOT EXISTS ({known}) THEN CREATE ROLE {name} NOLOGIN; END IF; END $$;"
    yield "-- A temporary table could stand in front of one of the ledger's, and hide it from its own rules."
    yield "DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());"
    yield "    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());"
    yield f"    EXECUTE format('GRANT USAGE ON SCHEMA %I TO {names}', current_schema()); END $$;"
    yield f"REVOKE ALL ON {tables}, alembic_version FROM PUBLIC, {names};"
    yield f"GRANT SELECT ON {tables}, alembic_version TO {names};"
    for role in found:
        name = f"{prefix}_{role.name}"
        yield f"-- {role.name}: {role.purpose}."
        if role.inserts:
            yield f"GRANT INSERT ON {', '.join(sorted(role.inserts))} TO {name};"
        for table, columns in sorted(role.updates.items()):
            yield f"GRANT UPDATE ({', '.join(columns)}) ON {table} TO {name};"
