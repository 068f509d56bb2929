"""The waterfall of a balance: from the opening and the earnings to the payout and the amount carried forward.

`credit.accounting.statement_lines` lists the lines and says how they add up; `settle` computes them.

**Rounding.** Every rate is agreed in parts per million and applied once, to an integer, exactly. The remaining fraction
of a minor unit falls to the provider: the reserve, advances recouped, withholding and the house's part are rounded
down. Withholding and fees arise when money is paid, not when it is earned, so nothing is taken twice from an
amount carried forward.

**Collections on hold.** Earnings of a collection on hold are neither owed nor set off against a debt, no reserve is
held from them, and no advance is recouped from them. The first close after the release counts them as earned, with the
reserve and recoupment of its own period, but at the rate of the period in which they arose.

**Currencies.** Each has a waterfall of its own; reserves and advances never mix. Where the terms pay a currency in
another one, the amount owed at the end of the first waterfall is converted and comes in at the end of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from credit.accounting.amounts import money_text
from credit.accounting.fx import NO_RATES, Conversion, PeriodRates, convert
from credit.accounting.payability import CARRIAGE
from credit.accounting.statement_lines import STATEMENT_LINES, Section
from credit.errors import IntegrityError, InvalidRequestError
from credit.records import PPM, Terms


@dataclass(frozen=True, slots=True)
class HeldCollection:
    """Earnings of a collection on hold, over one period, in minor units of one currency.

    Attributes:
        collection: its name.
        opening_minor: held when the period began, at least 0.
        corrected_minor: moved by restatements of earlier periods, of either sign.
        held_minor: earned in this period and held, at least 0.
        released_minor: all of it, where the hold was released; else 0.
        reason: why it is on hold; empty where it was released.
    """

    collection: str
    opening_minor: int
    corrected_minor: int
    held_minor: int
    released_minor: int
    reason: str

    @property
    def balance_minor(self) -> int:
        """The amount still held."""
        return self.opening_minor + self.corrected_minor + self.held_minor - self.released_minor

    def __post_init__(self) -> None:
        if min(self.opening_minor, self.held_minor, self.released_minor, self.balance_minor) < 0:
            raise IntegrityError(f"collection {self.collection}: the amount held of it is negative")
        on_hold = bool(self.reason)
        if on_hold == bool(self.released_minor) or (not on_hold and (self.held_minor or self.balance_minor)):
            raise IntegrityError(f"collection {self.collection}: it is held, with a reason, or all of it is released")


@dataclass(frozen=True, slots=True)
class Waterfall:
    """One provider's balance in one currency over one period, in minor units. Its lines always add up.

    Attributes:
        provider: the provider's key.
        currency: ISO 4217 code.
        opening_minor: carried from the period before; negative is owed by the provider.
        earned_minor: the provider's part of the period's allocations, at least 0.
        adjustments_minor: corrections, of either sign.
        reserve_held_minor: held back of the earnings, at least 0.
        reserve_released_minor: held back earlier and due now, at least 0.
        advances_recouped_minor: earnings that pay back advances; at most the earnings not on hold.
        withholding_minor: tax withheld from the payment, at least 0.
        fees_minor: taken from the payment, at least 0.
        payable_minor: to be paid now, at least 0.
        carried_forward_minor: the next period's opening.
        reason: why nothing is paid, or why a rest is carried forward, in words; empty exactly when all is paid.
        reserve_balance_minor: all reserves after this period.
        advance_balance_minor: advances not paid back after this period, at least 0.
        converted_in_minor: converted from balances in other currencies, at least 0.
        collections: the provider's collections on hold, and released ones, by name.
        conversion: of the whole balance, where the terms pay it in another currency; else None.
        unit_minor: the smallest amount that can be paid.
    """

    provider: str
    currency: str
    opening_minor: int
    earned_minor: int
    adjustments_minor: int
    reserve_held_minor: int
    reserve_released_minor: int
    advances_recouped_minor: int
    withholding_minor: int
    fees_minor: int
    payable_minor: int
    carried_forward_minor: int
    reason: str
    reserve_balance_minor: int = 0
    advance_balance_minor: int = 0
    converted_in_minor: int = 0
    collections: tuple[HeldCollection, ...] = ()
    conversion: Conversion | None = None
    unit_minor: int = 1

    @property
    def collections_held_minor(self) -> int:
        """Earnings of this period by collections on hold, at least 0."""
        return sum(item.held_minor for item in self.collections)

    @property
    def collections_released_minor(self) -> int:
        """Earnings released from hold, at least 0."""
        return sum(item.released_minor for item in self.collections)

    @property
    def disposable_minor(self) -> int:
        """Earnings of this period: made now and not held, or released from hold; at least 0."""
        return self.earned_minor - self.collections_held_minor + self.collections_released_minor

    @property
    def converted_out_minor(self) -> int:
        """The amount converted into another currency, at least 0."""
        return self.conversion.amount_minor if self.conversion else 0

    @property
    def amounts(self) -> dict[str, int]:
        """The amounts of all lines, by name, in the order of a statement and without their signs."""
        return {line.name: int(getattr(self, f"{line.name}_minor")) for line in STATEMENT_LINES}

    def sum_of(self, section: Section) -> int:
        """Return the sum of the lines of a section, each with its sign."""
        amounts = self.amounts
        return sum(line.sign * amounts[line.name] for line in STATEMENT_LINES if line.section == section)

    @property
    def owed_minor(self) -> int:
        """The payment if there were neither tax nor fee, minimum or hold; negative is a debt."""
        return self.sum_of("owed")

    def __post_init__(self) -> None:
        where = f"statement of {self.provider} in {self.currency}"
        taken = self.withholding_minor + self.fees_minor
        if self.owed_minor + self.sum_of("taken") != self.sum_of("outcome"):
            raise IntegrityError(
                f"{where}: {self.payable_minor} payable, {taken} withheld, {self.converted_out_minor} converted and"
                f" {self.carried_forward_minor} carried are not {self.owed_minor}"
            )
        if self.conversion is not None and (self.payable_minor or self.carried_forward_minor):
            raise IntegrityError(f"{where}: what is converted is neither paid nor carried")
        amounts = self.amounts
        never_negative = [amounts[line.name] for line in STATEMENT_LINES if not line.may_be_negative]
        if min(*never_negative, self.disposable_minor, self.reserve_balance_minor, self.advance_balance_minor) < 0:
            raise IntegrityError(f"{where}: an amount is negative that cannot be")
        if max(self.advances_recouped_minor, self.reserve_held_minor) > self.disposable_minor:
            raise IntegrityError(f"{where}: more is recouped or held back than was earned")
        # A rest is carried beside a payment only where less than a unit cannot be paid.
        rest = self.payable_minor and self.carried_forward_minor
        if (self.payable_minor == 0 and taken) or (rest and (self.unit_minor == 1 or rest < 0)):
            raise IntegrityError(f"{where}: an amount is paid and carried at once, or taxed without being paid")
        if (self.payable_minor == 0 or self.carried_forward_minor != 0) != bool(self.reason):
            raise IntegrityError(f"{where}: a reason is given exactly when nothing, or not all, is paid")
        if self.payable_minor % self.unit_minor:
            raise IntegrityError(f"{where}: {self.payable_minor} is paid, and {self.unit_minor} is the smallest unit")


def part(amount_minor: int, share_ppm: int) -> int:
    """Return a share of an amount of at least 0, rounded down to a minor unit."""
    if amount_minor < 0:
        raise InvalidRequestError(f"a share of {amount_minor} cannot be taken; the amount must be at least 0")
    return amount_minor * share_ppm // PPM


def provider_part(allocated_minor: int, rate_ppm: int) -> int:
    """Return the provider's part of an allocation; the rest is the house's, rounded down."""
    # Not `part(allocated_minor, rate_ppm)`: that would round the provider down instead of the house.
    return allocated_minor - part(allocated_minor, PPM - rate_ppm)


def settle(
    provider: str,
    currency: str,
    *,
    opening_minor: int,
    earned_minor: int,
    adjustments_minor: int = 0,
    released_minor: int = 0,
    reserve_minor: int = 0,
    advance_minor: int = 0,
    converted_in_minor: int = 0,
    collections: Sequence[HeldCollection] = (),
    terms: Terms | None = None,
    hold: str = "",
    rates: PeriodRates = NO_RATES,
) -> Waterfall:
    """Settle a balance: it is paid whole, converted into another currency, or carried forward with the reason.

    A balance is carried forward whole while it is negative, on hold, or below the minimum payout. A debt stays visible
    and is worked off by later earnings. Where the agreed channel carries whole units alone, a rest below one is carried
    forward; tax is withheld from what is paid. Advances are recouped from this period's earnings alone, and never so
    far that the provider would owe.

    Args:
        provider: the provider's key.
        currency: ISO 4217 code.
        opening_minor: carried from the period before.
        earned_minor: the provider's part of this period's allocations.
        adjustments_minor: corrections posted in this period.
        released_minor: reserves due now.
        reserve_minor: all reserves so far, `released_minor` included.
        advance_minor: advances not paid back so far.
        converted_in_minor: converted from balances in other currencies.
        collections: the provider's collections on hold, and released ones.
        terms: the agreed terms; None for the defaults.
        hold: why the provider is on hold, or empty.
        rates: the period's rates, for a balance that is paid in another currency.

    Raises:
        LedgerError: the rate of the conversion is missing.
        InvalidRequestError: an amount is negative that cannot be, or the currency is unknown.
    """
    agreed = terms or Terms()
    if min(earned_minor, released_minor, advance_minor) < 0 or released_minor > reserve_minor:
        raise InvalidRequestError(
            f"{provider}: earnings ({earned_minor}), reserves due ({released_minor} of {reserve_minor}) and advances"
            f" ({advance_minor}) cannot be negative, nor more be released than is held"
        )
    # Held earnings leave first: no reserve is kept of them, and no advance recouped from them.
    disposable = earned_minor - sum(item.held_minor - item.released_minor for item in collections)
    held = part(disposable, agreed.reserve_ppm)
    before = opening_minor + disposable + adjustments_minor - held + released_minor + converted_in_minor
    # Last of all, so that an advance is never recouped from money that pays back a debt.
    recouped = max(0, min(advance_minor, part(disposable, agreed.recoupment_ppm), before))
    owed = before - recouped
    carriage = CARRIAGE[agreed.channel] if agreed.channel else None
    unit = carriage.unit_minor(currency) if carriage else 1
    paid = _whole_units(owed, agreed, unit)
    # A debt is no payment, so that no tax is withheld from it.
    withheld = part(max(paid, 0), agreed.withholding_ppm)
    conversion = None
    # A balance that is converted pays neither tax nor fee here: both are taken where it is paid.
    if agreed.pay_in and owed > 0 and not hold:
        conversion = convert(owed, currency, agreed.pay_in, rates.between(currency, agreed.pay_in))
        reason, pays = _converted(conversion), False
        # Less than the smallest amount of the other currency: carried forward, not lost.
        if conversion.converted_minor == 0:
            conversion = None
    else:
        reason = _reason(owed, agreed, currency, hold, collections)
        pays = not reason
        if pays and paid != owed and carriage:
            rest = money_text(owed - paid, currency)
            reason = f"{carriage.title} carries whole {currency} alone; the rest of {rest} is carried forward"
    return Waterfall(
        provider,
        currency,
        opening_minor,
        earned_minor,
        adjustments_minor,
        reserve_held_minor=held,
        reserve_released_minor=released_minor,
        advances_recouped_minor=recouped,
        withholding_minor=withheld if pays else 0,
        fees_minor=agreed.fee_minor if pays else 0,
        payable_minor=paid - withheld - agreed.fee_minor if pays else 0,
        # Before tax and fee: they arise when it is paid.
        carried_forward_minor=owed - paid if pays else owed if conversion is None else 0,
        reason=reason,
        reserve_balance_minor=reserve_minor + held - released_minor,
        advance_balance_minor=advance_minor - recouped,
        converted_in_minor=converted_in_minor,
        collections=tuple(collections),
        conversion=conversion,
        unit_minor=unit,
    )


def _after_taking(owed: int, terms: Terms) -> int:
    """Return what is left of a balance after withholding and fee; not above 0 where nothing is."""
    return owed - part(max(owed, 0), terms.withholding_ppm) - terms.fee_minor


def _whole_units(owed: int, terms: Terms, unit: int) -> int:
    """Return the largest part of a balance of which a whole number of units is left after withholding and fee."""
    net = _after_taking(owed, terms)
    if net <= 0 or net % unit == 0:
        return owed
    # x − ⌊x t⌋ = ⌈x (1 − t)⌉ is what leaves, and the fee: this x is the largest one.
    return min(owed, (net - net % unit + terms.fee_minor) * PPM // (PPM - terms.withholding_ppm))


def _reason(owed: int, terms: Terms, currency: str, hold: str, collections: Sequence[HeldCollection]) -> str:
    """Return the reason for paying nothing; empty for a payment."""

    def money(minor: int) -> str:
        return money_text(minor, currency)

    payable = _after_taking(owed, terms)
    after = f", {money(payable)} after withholding and fees," if payable != owed else ""
    if owed == 0:
        kept = (item for item in collections if item.reason)
        held = [f"{money(item.balance_minor)} of {item.collection} ({item.reason})" for item in kept]
        return f"nothing is owed but what is on hold: {', '.join(held)}" if held else "nothing is owed"
    if owed < 0:
        return f"the balance of {money(owed)} is negative; it is carried forward and set off against later earnings"
    if hold:
        return f"the balance of {money(owed)} is on hold: {hold}; it is carried forward"
    if payable <= 0:
        return f"the balance of {money(owed)} does not exceed withholding and fees; it is carried forward"
    if payable < terms.minimum_payout_minor:
        minimum = money(terms.minimum_payout_minor)
        return f"the balance of {money(owed)}{after} is below the minimum payout of {minimum}; it is carried forward"
    fault = _fault_of_channel(payable, terms, currency)
    return f"the balance of {money(owed)}{after} {fault}; it is carried forward" if fault else ""


def _fault_of_channel(payable: int, terms: Terms, currency: str) -> str:
    """Return why the agreed channel cannot carry a payment; empty where it can, or where none is agreed."""
    if terms.channel is None:
        return ""
    carriage = CARRIAGE[terms.channel]
    if not carriage.takes(currency):
        return f"cannot be paid: {carriage.title} does not carry {currency}"
    unit = carriage.unit_minor(currency)
    if payable >= unit:
        return ""
    return f"is below {money_text(unit, currency)}, the least that {carriage.title} carries"


def _converted(item: Conversion) -> str:
    """Return the reason of a converted balance: paid in another currency, or too small for it."""
    amount = f"the balance of {money_text(item.amount_minor, item.currency)}"
    if item.converted_minor == 0:
        return f"{amount} is less than can be paid in {item.into}; it is carried forward"
    return f"{amount} is paid in {item.into}: converted, {money_text(item.converted_minor, item.into)}"
