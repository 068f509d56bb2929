"""Kinds of accounts, and the keys of the accounts of each kind.

`AccountKind` is the one table of them. Keys are built and read by it; the database's check of kinds, messages and
exports come from it. Each commodity sums to zero over all accounts, so some balances are negative: the table says
"minus" there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from credit.errors import LedgerError
from credit.ledger.values import is_storable
from credit.records import Group, is_collection, is_period, is_provider_key

IN_CREDITS = "credits:"
"""Start of the keys of accounts of micro-credits; all other accounts hold minor units of money."""

EXPORTED = "exported"
"""Last part of the key of a provider's payouts with a bank; the account's row keeps it as collection."""

_PAIR = re.compile(r"[A-Z]{3}-[A-Z]{3}")


class AccountKind(StrEnum):
    """A kind of account: its name, the owner named after a colon in its keys, and the content of its accounts."""

    owner: str
    holds: str

    def __new__(cls, name: str, owner: str, holds: str) -> AccountKind:
        """Make a member of a row of the table; the name is its value."""
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.owner, kind.holds = owner, holds
        return kind

    ISSUED = "credits:issued", "", "minus all micro-credits that outputs distributed"
    EARNED = "credits:earned", "<provider>/<collection>", "micro-credits that a collection earned"
    EXTERNAL = "money:external", "", "minus all money that came in from outside"
    POOL = "money:pool", "<period>", "money to distribute for a period"
    PAYABLE = "money:payable", "<provider>", "money owed to a provider"
    PAYOUT = "money:payout", "<provider>[/exported]", "money approved for payment; exported: a bank was told to pay it"
    RESERVE = "money:reserve", "<provider>", "earnings of a provider that are held back for a time"
    ADVANCE = "money:advance", "<provider>", "minus advances that a provider has not earned yet"
    WITHHOLDING = "money:withholding", "<provider>", "tax withheld from a provider's payouts"
    FEES = "money:fees", "", "fees taken from payouts"
    ESCROW = "money:escrow", "", "money that no provider earned, held for whoever may claim it"
    FX = "money:fx", "<base>-<quote>", "money exchanged at rates of a pair: minus what was given, plus what was taken"
    UNVALUED = "credits:unvalued", "", "micro-credits of outputs that can never be valued"
    HELD = "money:held", "<provider>/<collection>", "earnings of a collection while it is on hold"

    def key(self, owner: str | Group = "") -> str:
        """Return the key of an owner's account, or of the only account of a kind without owners."""
        return f"{self}:{owner}" if self.owner else str(self)


_KINDS = {str(kind): kind for kind in AccountKind}


def exported_account(provider_key: str) -> str:
    """Return the key of the account of a provider's payouts with a bank."""
    return AccountKind.PAYOUT.key(f"{provider_key}/{EXPORTED}")


def fx_account(base: str, quote: str) -> str:
    """Return the key of the account of exchanges between two currencies."""
    return AccountKind.FX.key(f"{base}-{quote}")


@dataclass(frozen=True, slots=True)
class AccountKey:
    """The parts of an account's key, as the columns of its row have them."""

    kind: AccountKind
    provider: str | None = None
    collection: str | None = None


def parse_account(key: str) -> AccountKey:
    """Return the parts of an account's key; LedgerError when it has no form of `AccountKind`."""
    family, _, rest = key.partition(":")
    purpose, colon, owner = rest.partition(":")
    kind = _KINDS.get(f"{family}:{purpose}")
    if kind is not None:
        # At the first slash: a collection's name may hold more of them, a provider's key none.
        provider, _, part = owner.partition("/")
        match kind.owner:
            case "" if not colon:
                return AccountKey(kind)
            case "<period>" if is_period(owner):
                return AccountKey(kind)
            case "<base>-<quote>" if _PAIR.fullmatch(owner):
                return AccountKey(kind)
            case "<provider>" | "<provider>[/exported]" if is_provider_key(owner):
                return AccountKey(kind, owner)
            case "<provider>[/exported]" if is_provider_key(provider) and part == EXPORTED:
                return AccountKey(kind, provider, EXPORTED)
            case "<provider>/<collection>" if is_provider_key(provider) and is_collection(part) and is_storable(part):
                return AccountKey(kind, provider, part)
    forms = ", ".join(f"{kind}:{kind.owner}" if kind.owner else str(kind) for kind in AccountKind)
    raise LedgerError(f"{key!r} is not an account; accounts are {forms}")
