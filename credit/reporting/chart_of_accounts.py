"""Chart of accounts: the ledger's accounts as those that accountants book, and a file that renames them.

The ledger calls everything outside `money:external`. For the payer's books that is two accounts: the expense from
which pools are fed, and the bank that pays. The kind of transaction tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from credit.errors import InputError
from credit.ingest.files import read_csv
from credit.ledger.accounts import AccountKind, parse_account
from credit.ledger.transaction_kinds import TransactionKind
from credit.records import HOUSE, Quarantined

EXPENSE, BANK = "Expenses:Royalties", "Assets:Bank"

_PURPOSES: Mapping[AccountKind, str] = {
    AccountKind.ADVANCE: "Assets:Advance",
    AccountKind.FEES: "Income:Fees",
    AccountKind.FX: "Income:Fx",
}
"""Where an account of a kind stands, if not among the liabilities."""

_HOUSE = AccountKind.PAYABLE.key(HOUSE)


def account_name(key: str, kind: str = "") -> str:
    """Return the name of a ledger's account of money in the chart, in beancount's form; no two accounts share one.

    A key of lower-case letters, digits, `-` and `_` becomes words that start with a capital or digit. beancount does
    not take `_`, which becomes `-U-`. Any other character of a collection's name becomes its Unicode number, in
    hexadecimal between hyphens.

    Args:
        key: the account's key in the ledger.
        kind: the kind of the transaction, of a reversal that of the reversed one; `money:external` needs it.
    """
    if key == AccountKind.EXTERNAL:
        return EXPENSE if kind == TransactionKind.POOL else BANK
    if key == _HOUSE:
        return "Income:House"
    _, purpose, *owners = key.split(":")
    owner, _, stage = ":".join(owners).partition("/")
    stand = _PURPOSES.get(parse_account(key).kind, f"Liabilities:{_word(purpose)}")
    # The rest goes into the purpose: an account that contains another one would count its balance, too.
    return ":".join([f"{stand}-{_escaped(stage)}" if stage else stand, *([_word(owner)] if owner else [])])


def _word(text: str) -> str:
    plain = text.replace("_", "-U-")
    return plain[0].upper() + plain[1:]


def _escaped(text: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else f"-{ord(letter):x}-" for letter in text)


@dataclass(frozen=True, slots=True)
class AccountMap:
    """Codes of another chart, by the names of this one, or by the beginnings of names that end before a colon."""

    codes: Mapping[str, str]
    path: Path | None = None

    def code(self, name: str) -> str:
        """Return the code of the longest entry that names the account, or accounts around it.

        Raises:
            InputError: a file maps accounts, and not this one. Money without an account would be missing in the books.
        """
        if self.path is None:
            return name
        words = name.split(":")
        for count in range(len(words), 0, -1):
            found = self.codes.get(":".join(words[:count]))
            if found is not None:
                return found
        raise InputError(f"{self.path} has no code for {name}; add a line for it, or for all of {':'.join(words[:-1])}")


def read_account_map(path: Path) -> AccountMap:
    """Read a CSV file with the columns `account` and `code`.

    Raises:
        InputError: a line is bad, or names an account for the second time.
    """
    codes: dict[str, str] = {}
    for row in read_csv(path, required=("account", "code")):
        if isinstance(row, Quarantined):
            raise InputError(f"{row.place}: {row.error}")
        name, code = (str(row.record[column]).strip() for column in ("account", "code"))
        if not name or not code:
            raise InputError(f"{row.place}: account and code are needed, such as Liabilities:Payable and 1600")
        if name in codes:
            raise InputError(f"{row.place}: {name} is mapped already, to {codes[name]}")
        codes[name] = code
    return AccountMap(codes, path)
