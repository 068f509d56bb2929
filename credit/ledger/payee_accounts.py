"""Accounts of payees: their changes, red flags before a payment, and acceptances of these by people.

A red flag is a sign of fraud or of a mistake in payment details. Three signs hold the payout back: the payer's own
account, an account of several providers, an account changed a few days ago. Two are only named: an IBAN of another
country than its bank, or than the address.

A person with better knowledge accepts the red flags of a provider, by name and with a reason. An acceptance is of one
account and one sign; it ends when the account changes. Personal data stays in its own table: an acceptance names a
version of the details, and a provider's statement tells a change by its day and the last four characters.

Only accounts that the ledger still knows can be compared. After an erasure, the next account counts as changed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Literal

from sqlalchemy import Connection, func, select

from credit.errors import InvalidRequestError, LedgerError
from credit.ledger.clock import recorded_moment
from credit.ledger.database import serialise_writers
from credit.ledger.personal_data import keep_erasable
from credit.ledger.rows import PROVIDER, add_records, read_row
from credit.ledger.schema import (
    payout_batch,
    personal_event,
    provider,
    provider_pii,
    red_flag_acceptance,
    seal,
    statement,
)
from credit.ledger.values import is_storable, utc_moment
from credit.records import AccountChange, is_acceptance
from credit.text import counted

Sign = Literal["own-account", "shared-account", "changed-account", "foreign-bank", "foreign-address"]

HOLDING: frozenset[Sign] = frozenset({"own-account", "shared-account", "changed-account"})
"""Signs of fraud: they hold a payout back until somebody accepts them."""

_TERRITORIES: Mapping[str, frozenset[str]] = {
    "FI": frozenset({"AX"}),
    "FR": frozenset({"BL", "GF", "GP", "MC", "MF", "MQ", "NC", "PF", "PM", "RE", "TF", "WF", "YT"}),
    "GB": frozenset({"GG", "IM", "JE"}),
    "MC": frozenset({"FR"}),
}
"""Countries of banks and addresses that belong to IBANs of another country, as the IBAN registry of ISO 13616 has it
("IBAN country code includes other countries/territories"); banks in Monaco and France use either's BIC.
"""

_SHOWN = 3
"""Providers named as users of one account."""

_Accounts = Mapping[str, str]
"""Accounts of a provider by field of its details; equal texts are the same account."""


@dataclass(frozen=True, slots=True)
class RedFlag:
    """A red flag of a provider's present account.

    Attributes:
        provider: key of the provider.
        sign: its kind.
        subject: the other providers, or the other country; with the sign it tells flags of one account apart.
        details_id: the present version of the provider's details.
        text: for people, without personal data.
        accepted: `NAME: reason` of an acceptance, or empty.
    """

    provider: str
    sign: Sign
    subject: str
    details_id: int
    text: str
    accepted: str = ""

    def __str__(self) -> str:
        return f"{self.provider}: {self.text}"

    @property
    def holds(self) -> bool:
        """True if it holds the payout back."""
        return self.sign in HOLDING and not self.accepted


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A red flag accepted by a person (`NAME: reason`), for the account in a version of the details."""

    provider: str
    sign: Sign
    subject: str
    details_id: int
    accepted: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class _Version:
    """An event of a provider's details; `accounts` is None for an erasure and for an erased version."""

    id: int
    provider: str
    action: Literal["set", "erased"]
    recorded_at: datetime
    seal: int
    accounts: _Accounts | None
    bic: str
    country: str


@dataclass(frozen=True, slots=True)
class _Present:
    """The present account of a provider: its last version, and the first version with the same accounts.

    `replaced` is true if another account, known or erased, came before it.
    """

    last: _Version
    since: _Version
    replaced: bool

    @property
    def accounts(self) -> _Accounts:
        return self.last.accounts or {}


def account_changes(conn: Connection) -> dict[str, list[AccountChange]]:
    """Return the changes of each provider's accounts since its last statement, in order."""
    # By the order of seals: clocks may have been wrong, but each row was sealed when it was written.
    last = (
        select(PROVIDER, func.max(seal.c.id))
        .join_from(statement, provider)
        .join(seal, (seal.c.table_name == statement.name) & (seal.c.row_id == statement.c.id))
        .group_by(provider.c.key)
    )
    told: dict[str, int] = {key: number for key, number in conn.execute(last)}
    found = {}
    for key, versions in _histories(conn):
        changes = [change for version, change in _changes(versions) if version.seal > told.get(key, 0)]
        if changes:
            found[key] = changes
    return found


def red_flags(
    conn: Connection, keys: Iterable[str], *, payer_ibans: Collection[str], waiting_days: int, now: datetime
) -> dict[str, list[RedFlag]]:
    """Return the red flags of providers, accepted ones too, by provider; providers without any are left out.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        keys: the providers to look at; they are compared with all others.
        payer_ibans: accounts of the payer, without spaces.
        waiting_days: days for which a changed account waits.
        now: by the machine's clock.
    """
    present = {key: item for key, versions in _histories(conn) if (item := _present(versions)) is not None}
    users: dict[str, list[str]] = {}
    for key, item in present.items():
        for account in set(item.accounts.values()):
            users.setdefault(account, []).append(key)
    accepted: dict[str, list[Acceptance]] = {}
    for acceptance in acceptances(conn):
        accepted.setdefault(acceptance.provider, []).append(acceptance)
    found = {}
    for key in sorted(set(keys) & present.keys()):
        item = present[key]
        others = {other for account in item.accounts.values() for other in users[account]} - {key}
        signs = _signs(item, others, {_plain(iban) for iban in payer_ibans}, waiting_days, now)
        # An acceptance ends with the account that it is about.
        own = [one for one in accepted.get(key, ()) if one.details_id >= item.since.id]
        flags = [
            RedFlag(key, sign, subject, item.last.id, text, _accepted(own, sign, subject))
            for sign, subject, text in signs
        ]
        if flags:
            found[key] = flags
    return found


def _signs(
    item: _Present, others: Collection[str], ibans: Collection[str], days: int, now: datetime
) -> Iterator[tuple[Sign, str, str]]:
    """Yield each sign of an account with its subject and its words."""
    iban = item.accounts.get("iban", "")
    if iban in ibans:
        yield "own-account", "", "its account is the payer's own"
    if others:
        named = sorted(others)
        more = f" and {counted(len(named) - _SHOWN, 'other')}" if len(named) > _SHOWN else ""
        yield "shared-account", ",".join(named), f"it has the same account as {', '.join(named[:_SHOWN])}{more}"
    changed = item.since.recorded_at.astimezone(UTC).date()
    free = changed + timedelta(days=days)
    if item.replaced and item.accounts and now.astimezone(UTC).date() < free:
        yield "changed-account", "", f"its account was changed on {changed} and waits for {days} days, until {free}"
    home, bank, address = iban[:2].upper(), item.last.bic[4:6].upper(), item.last.country
    right = {"", home, *_TERRITORIES.get(home, ())}
    if home and bank not in right:
        yield "foreign-bank", bank, f"its BIC is of {bank}, its IBAN of {home}"
    if home and address not in right:
        yield "foreign-address", address, f"its address is in {address}, its account in {home}"


def _accepted(own: Iterable[Acceptance], sign: Sign, subject: str) -> str:
    """Return the last acceptance of a sign; empty if nobody accepted all of its subject."""
    same = [one for one in own if one.sign == sign]
    covered = {part for one in same for part in one.subject.split(",")}
    return same[-1].accepted if set(subject.split(",")) <= covered else ""


def payer_ibans(conn: Connection) -> set[str]:
    """Return the accounts of the payer in all earlier batches."""
    rows = conn.execute(select(payout_batch.c.payer_json).distinct()).scalars()
    found = (str(json.loads(payer_json).get("iban", "")) for payer_json in rows)
    return {_plain(iban) for iban in found if iban}


def acceptances(conn: Connection, provider_key: str | None = None) -> list[Acceptance]:
    """Return the accepted red flags, of one provider or of all, in order."""
    query = select(red_flag_acceptance, PROVIDER).join_from(red_flag_acceptance, provider)
    if provider_key is not None:
        query = query.where(provider.c.key == provider_key)
    return [read_row(Acceptance, row) for row in conn.execute(query.order_by(red_flag_acceptance.c.id))]


def accepted_flags(flags: Mapping[str, list[RedFlag]], key: str, text: str) -> list[RedFlag]:
    """Return the red flags of a provider, each accepted now or before.

    Raises:
        InvalidRequestError: the text is not `NAME: reason`.
        LedgerError: the provider has no red flag.
    """
    if not is_acceptance(text):
        raise InvalidRequestError(f"the red flags of {key} are accepted by name, in one line of text: NAME: reason")
    if key not in flags:
        raise LedgerError(f"{key} has no red flag to accept; leave out --accept {key}")
    return [flag if flag.accepted else replace(flag, accepted=text) for flag in flags[key]]


def record_acceptances(conn: Connection, flags: Iterable[RedFlag], *, now: datetime) -> None:
    """Record accepted red flags; those recorded before change nothing.

    Raises:
        LedgerError: a text repeats personal data, or a database cannot keep it.
    """
    serialise_writers(conn)
    known = {(item.provider, item.sign, item.subject, item.accepted): item.details_id for item in acceptances(conn)}
    moment = recorded_moment(conn, now)
    new = []
    for flag in flags:
        name = (flag.provider, flag.sign, flag.subject, flag.accepted)
        if known.get(name) == flag.details_id:
            continue
        if not is_storable(flag.accepted):
            raise LedgerError(f"the acceptance for {flag.provider} holds a character that a database cannot keep")
        keep_erasable(conn, flag.accepted, f"the acceptance for {flag.provider}")
        new.append(Acceptance(*name[:3], flag.details_id, flag.accepted, moment))
    add_records(conn, red_flag_acceptance, new)


def _histories(conn: Connection) -> Iterator[tuple[str, list[_Version]]]:
    """Yield each provider's key with the events of its details, in order."""
    sealed = (seal.c.table_name == personal_event.name) & (seal.c.row_id == personal_event.c.id)
    details = [provider_pii.c[name] for name in ("iban", "paypal", "email", "bic", "country")]
    query = (
        select(personal_event.c.id, PROVIDER, personal_event.c.action, personal_event.c.recorded_at)
        .add_columns(seal.c.id.label("sealed"), provider_pii.c.id.label("version"), *details)
        .join_from(personal_event, provider)
        .join(seal, sealed)
        .outerjoin(provider_pii, provider_pii.c.id == personal_event.c.id)
        .order_by(provider.c.key, personal_event.c.id)
    )
    for key, rows in groupby(conn.execute(query), lambda row: row.provider):
        yield (
            key,
            [
                _Version(
                    row.id,
                    key,
                    row.action,
                    utc_moment(row.recorded_at),
                    row.sealed,
                    None if row.version is None else _accounts(row.iban, row.paypal, row.email),
                    row.bic or "",
                    row.country or "",
                )
                for row in rows
            ],
        )


def _accounts(iban: str, paypal: str, email: str) -> _Accounts:
    """Return the accounts of a version; an email is one only where there is no other."""
    found = {name: _plain(value) for name, value in (("iban", iban), ("paypal", paypal)) if value}
    return found or ({"email": _plain(email)} if email else {})


def _plain(account: str) -> str:
    return "".join(account.split()).casefold()


def _changes(versions: Iterable[_Version]) -> Iterator[tuple[_Version, AccountChange]]:
    """Yield each change of a provider's accounts with its version; changes inside erased versions are unknown."""
    before: _Accounts = {}
    had_one = False  # an earlier account, known or erased
    for version in versions:
        on, now = version.recorded_at.astimezone(UTC).date(), version.accounts or {}
        if version.action == "erased":
            yield version, AccountChange(on, "erased")
        for name in sorted({*before, *now}) if version.accounts is not None else ():
            if name in now and now[name] != before.get(name):
                last_four = now[name][-4:].upper() if name == "iban" else ""
                yield version, AccountChange(on, "changed" if had_one else "recorded", name, last_four)
            elif name not in now and name != "email":  # an email ends as an account where there is a better one
                yield version, AccountChange(on, "removed", name)
        had_one = had_one or version.accounts is None or bool(now)
        before = now


def _present(versions: Iterable[_Version]) -> _Present | None:
    """Return the present account of a provider; None without details."""
    present: _Present | None = None
    others = False
    for version in versions:
        if version.accounts is None:
            present, others = None, True
        elif present is not None and present.accounts == version.accounts:
            present = replace(present, last=version)
        else:
            others = others or (present is not None and bool(present.accounts))
            present = _Present(version, version, others)
    return present
