"""Account keys: what they mean, and the rows that stand for them.

| key | holds |
|---|---|
| `credits:issued` | minus all credits that outputs distributed |
| `credits:earned:<provider>/<collection>` | micro-credits that a provider's collection earned |
| `credits:set-aside` | micro-credits of outputs that were set aside, because they cannot be valued |
| `money:external` | minus all money that came in from outside |
| `money:pool:<period>` | money to distribute for a period |
| `money:payable:<provider>` | what is owed to a provider |
| `money:payout:<provider>` | what is approved to be paid to a provider |
| `money:payout:<provider>/exported` | what a bank was told to pay to a provider and has not confirmed |
| `money:reserve:<provider>` | what a provider earned and is held back for a time |
| `money:held:<provider>/<collection>` | what a collection that is on hold earned |
| `money:advance:<provider>` | minus what a provider was paid in advance and has not earned yet |
| `money:withholding:<provider>` | tax withheld from a provider's payouts |
| `money:fees` | fees taken from payouts |
| `money:fx:<base>-<quote>` | what was exchanged at rates of a pair: minus what was given, plus what was taken |
| `money:escrow` | what no provider earned and is held for whoever may claim it |

Balances of the two contra accounts and of advances are negative; every commodity sums to zero over all accounts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, select

from credit.errors import LedgerError
from credit.ledger.schema import account, next_id, provider
from credit.ledger.seals import add_rows
from credit.ledger.values import is_storable
from credit.records import Group, is_collection, is_period, is_provider_key

ISSUED = "credits:issued"
SET_ASIDE = "credits:set-aside"
EXTERNAL = "money:external"
EARNED_KIND = "credits:earned"
POOL_KIND = "money:pool"
PAYABLE_KIND = "money:payable"
PAYOUT_KIND = "money:payout"
RESERVE_KIND = "money:reserve"
HELD_KIND = "money:held"
ADVANCE_KIND = "money:advance"
WITHHOLDING_KIND = "money:withholding"
FX_KIND = "money:fx"
EXPORTED = "exported"
"""Second part of the key of the account of payouts that are with a bank; stored as its collection."""
FEES = "money:fees"
ESCROW = "money:escrow"

_SINGLE = frozenset({ISSUED, SET_ASIDE, EXTERNAL, FEES, ESCROW})
_OF_A_PROVIDER = frozenset({PAYABLE_KIND, PAYOUT_KIND, RESERVE_KIND, ADVANCE_KIND, WITHHOLDING_KIND})

_PAIR = re.compile(r"[A-Z]{3}-[A-Z]{3}")
_BATCH = 500


@dataclass(frozen=True, slots=True)
class AccountKey:
    """An account's key, taken apart."""

    kind: str
    provider: str | None = None
    collection: str | None = None


def earned(group: Group) -> str:
    """Key of the account of the credits that a group earned."""
    return f"{EARNED_KIND}:{group.provider}/{group.collection}"


def pool_account(period: str) -> str:
    """Key of the account of the money to distribute for a period."""
    return f"{POOL_KIND}:{period}"


def payable(provider_key: str) -> str:
    """Key of the account of what is owed to a provider."""
    return f"{PAYABLE_KIND}:{provider_key}"


def payout_account(provider_key: str) -> str:
    """Key of the account of what is on its way to a provider."""
    return f"{PAYOUT_KIND}:{provider_key}"


def exported_account(provider_key: str) -> str:
    """Key of the account of what a bank was told to pay to a provider."""
    return f"{PAYOUT_KIND}:{provider_key}/{EXPORTED}"


def reserve_account(provider_key: str) -> str:
    """Key of the account of what is held back from a provider."""
    return f"{RESERVE_KIND}:{provider_key}"


def held_account(group: Group) -> str:
    """Key of the account of what a collection earned while it was on hold."""
    return f"{HELD_KIND}:{group.provider}/{group.collection}"


def advance_account(provider_key: str) -> str:
    """Key of the account of a provider's advances, negative while they are not recouped."""
    return f"{ADVANCE_KIND}:{provider_key}"


def fx_account(base: str, quote: str) -> str:
    """Key of the account of what was exchanged between two currencies."""
    return f"{FX_KIND}:{base}-{quote}"


def withholding_account(provider_key: str) -> str:
    """Key of the account of the tax withheld from a provider."""
    return f"{WITHHOLDING_KIND}:{provider_key}"


def parse_account(key: str) -> AccountKey:
    """Take an account's key apart; LedgerError when it is not one of the forms above."""
    if key in _SINGLE:
        return AccountKey(key)
    family, _, rest = key.partition(":")
    purpose, _, owner = rest.partition(":")
    kind = f"{family}:{purpose}"
    if kind in {EARNED_KIND, HELD_KIND}:
        name, _, collection = owner.partition("/")
        if is_provider_key(name) and is_collection(collection) and is_storable(collection):
            return AccountKey(kind, name, collection)
    elif (kind == POOL_KIND and is_period(owner)) or (kind == FX_KIND and _PAIR.fullmatch(owner)):
        return AccountKey(kind)
    elif kind in _OF_A_PROVIDER and is_provider_key(owner):
        return AccountKey(kind, owner)
    elif kind == PAYOUT_KIND and owner.endswith(f"/{EXPORTED}") and is_provider_key(owner.removesuffix(f"/{EXPORTED}")):
        return AccountKey(kind, owner.removesuffix(f"/{EXPORTED}"), EXPORTED)
    raise LedgerError(
        f"{key!r} is not an account; accounts are credits:issued, credits:set-aside,"
        " credits:earned:<provider>/<collection>,"
        " money:external, money:fees, money:escrow, money:pool:<period>, money:fx:<base>-<quote>, and for a provider"
        " money:payable:<provider>,"
        " money:payout:<provider>[/exported], money:reserve:<provider>, money:held:<provider>/<collection>,"
        " money:advance:<provider> and money:withholding:<provider>"
    )


def account_ids(conn: Connection, keys: Iterable[str]) -> dict[str, int]:
    """Return the id of every account, creating those that are new; LedgerError when a provider is unknown."""
    wanted = sorted(set(keys))
    found = _find(conn, wanted)
    missing = [key for key in wanted if key not in found]
    if missing:
        parsed = [parse_account(key) for key in missing]
        owners = _provider_ids(conn, {item.provider for item in parsed if item.provider is not None})
        first = next_id(conn, account)
        rows = [
            {
                "id": first + offset,
                "key": key,
                "kind": item.kind,
                "provider_id": None if item.provider is None else owners[item.provider],
                "collection": item.collection,
            }
            for offset, (key, item) in enumerate(zip(missing, parsed, strict=True))
        ]
        add_rows(conn, account, rows)
        found |= {str(row["key"]): first + offset for offset, row in enumerate(rows)}
    return found


def _find(conn: Connection, keys: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(keys), _BATCH):
        query = select(account.c.key, account.c.id).where(account.c.key.in_(keys[start : start + _BATCH]))
        found.update({key: number for key, number in conn.execute(query)})
    return found


def _provider_ids(conn: Connection, keys: set[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    ordered = sorted(keys)
    for start in range(0, len(ordered), _BATCH):
        query = select(provider.c.key, provider.c.id).where(provider.c.key.in_(ordered[start : start + _BATCH]))
        found.update({key: number for key, number in conn.execute(query)})
    unknown = [key for key in ordered if key not in found]
    if unknown:
        raise LedgerError(f"unknown provider {unknown[0]!r}; add it first: credit providers add {unknown[0]} NAME")
    return found
