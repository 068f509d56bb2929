"""The lines of a balance on a statement, in one table: name, sign, words, and the transaction that posts each.

The lines add up from top to bottom:

    opening + earned − collections held + collections released + adjustments
        − reserve held + reserve released − advances recouped + converted in = owed
    owed − withholding − fees − converted out = payable, or else carried forward, with the reason

Whatever shows a balance reads this table: `statement.json` and its page, the terminal and CSV reports, `credit close`
and `credit explain payout`. So does the close, which posts the lines.

To add a line, change:

1. this table;
2. `credit/accounting/waterfall.py`: a field of `Waterfall` named `<line>_minor`, computed in `settle`;
3. `credit/pipeline/explain_balances.py`, if its arithmetic has numbers in it (`_arithmetic`);
4. `credit/ledger/transaction_kinds.py`, if a new kind of transaction posts it (and `credit/ledger/accounts.py` beside
   it, if the money goes to a new kind of account).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Section = Literal["owed", "taken", "outcome"]


@dataclass(frozen=True, slots=True)
class StatementLine:
    """A line of a balance in one currency.

    Attributes:
        name: its key in `statement.json` and its column in reports; `Waterfall` has its amount as `<name>_minor`.
        section: `owed` lines add up to the balance, `taken` lines reduce it, `outcome` lines say where the rest goes.
        sign: 1 where the amount adds to the balance, -1 where it takes from it; 1 for an outcome.
        label: the words on a provider's statement; `{month}` stands for the period.
        explained: the source of the amount, in words, where `credit explain payout` has no arithmetic for it.
        always: shown even where the amount is 0; other lines only where it is not.
        may_be_negative: the amount has either sign; all others are at least 0.
        rate: the field of `Terms` with the rate of the line, in parts per million, or empty.
        rate_of: the base of that rate, in words.
        transaction: the name of the kind of transaction that posts it (the ledger's `TransactionKind`), or empty.
    """

    name: str
    section: Section
    sign: Literal[1, -1]
    label: str
    explained: str = ""
    always: bool = False
    may_be_negative: bool = False
    rate: str = ""
    rate_of: str = ""
    transaction: str = ""

    @property
    def heading(self) -> str:
        """The name as the heading of a column."""
        return self.name.replace("_", " ")


STATEMENT_LINES = (
    StatementLine(
        "opening",
        "owed",
        1,
        "Carried from earlier periods",
        "carried forward by the period before",
        always=True,
        may_be_negative=True,
    ),
    StatementLine("earned", "owed", 1, "Earned in {month}", "the shares of the pools above", always=True),
    StatementLine("collections_held", "owed", -1, "Of it, by collections on hold"),
    StatementLine(
        "collections_released",
        "owed",
        1,
        "Earned earlier, no longer on hold",
        transaction="collection-release",
    ),
    StatementLine("adjustments", "owed", 1, "Adjustments", "the corrections below", may_be_negative=True),
    StatementLine(
        "reserve_held",
        "owed",
        -1,
        "Held in reserve",
        rate="reserve_ppm",
        rate_of="of what was earned",
        transaction="reserve",
    ),
    StatementLine(
        "reserve_released",
        "owed",
        1,
        "Released from reserve",
        "held earlier, due by this period",
        transaction="reserve-release",
    ),
    StatementLine(
        "advances_recouped",
        "owed",
        -1,
        "Towards advances paid before",
        rate="recoupment_ppm",
        rate_of="of what was earned, at most",
        transaction="recoupment",
    ),
    StatementLine(
        "converted_in",
        "owed",
        1,
        "Converted from other currencies",
        "from the other currencies above, at their rates",
    ),
    StatementLine(
        "withholding",
        "taken",
        -1,
        "Tax withheld",
        rate="withholding_ppm",
        rate_of="of what is paid out, before tax and fees",
        transaction="withholding",
    ),
    StatementLine("fees", "taken", -1, "Fees", "for a payout", transaction="fees"),
    StatementLine(
        "converted_out",
        "taken",
        -1,
        "Converted to be paid in another currency",
        transaction="conversion",
    ),
    StatementLine(
        "payable",
        "outcome",
        1,
        "To be paid now",
        always=True,
        transaction="payout",
    ),
    StatementLine(
        "carried_forward", "outcome", 1, "Carried forward to the next period", always=True, may_be_negative=True
    ),
)
"""Every line, in the order of a statement."""
