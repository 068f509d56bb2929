"""The accounting said once more, as plainly as possible: dicts, fractions, no database. What is tested imports none.

Months are numbered from 0. Amounts are minor units. A provider's money is kept by (provider, currency).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor

from tests.pipeline.plain_credits import Output, Paid, divide, month_credits

Key = tuple[str, str]
PROVIDERS = ("ann", "ben")
HOUSE = ("house", "own")


class RefusedError(Exception):
    """The model expects the ledger to refuse."""


def month_name(number: int) -> str:
    return f"{2026 + number // 12}-{1 + number % 12:02d}"


@dataclass
class Agreed:
    rate: int = 1_000_000
    minimum: int = 0
    reserve: int = 0
    months: int = 0
    recoupment: int = 1_000_000
    withholding: int = 0
    fee: int = 0
    pay_in: str = ""


@dataclass
class Pool:
    net: int
    currency: str
    reference: str
    standing: bool = True


@dataclass
class Payout:
    """What a close approved, with what it took from it, and where it is: pending, exported, paid, failed or void."""

    month: int
    provider: str
    currency: str
    amount: int
    withheld: int = 0
    fee: int = 0
    status: str = "pending"


@dataclass
class Closed:
    """By what a month was closed, and what its restatements moved since."""

    house: str
    terms: dict[Key, Agreed]
    credited: dict[str, int]
    held: frozenset[str]
    moved: dict[Key, int] = field(default_factory=lambda: defaultdict(int))
    released: set[Key] = field(default_factory=set)

    def place(self, account: str, currency: str) -> Key:
        """Where money is now that was put into an account: what was released since is the provider's."""
        return (f"money:payable:{whose(account)}" if (account, currency) in self.released else account), currency


@dataclass
class Posted:
    """A transaction that somebody may want to reverse."""

    kind: str
    month: int
    what: object
    reversed: bool = False


def whose(account: str) -> str:
    return account.rpartition(":")[2].partition("/")[0]


def by_provider(credited: dict[str, int]) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for key, micro in credited.items():
        sums[whose(key)] += micro
    return sums


def share(amount: int, ppm: int) -> int:
    return floor(Fraction(amount * ppm, 1_000_000))


@dataclass
class Model:
    closed: int = -1
    opened: set[int] = field(default_factory=set)
    pools: dict[int, list[Pool]] = field(default_factory=lambda: defaultdict(list))
    moves: dict[int, dict[Key, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    advances: dict[Key, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    reserves: dict[Key, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    terms: dict[Key, Agreed] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    held_lines: set[str] = field(default_factory=set)
    carried: dict[Key, int] = field(default_factory=lambda: defaultdict(int))
    balances: dict[Key, int] = field(default_factory=lambda: defaultdict(int))
    posted: dict[int, Posted] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    closes: dict[int, Closed] = field(default_factory=dict)
    rates: dict[int, Fraction] = field(default_factory=dict)
    payouts: list[Payout] = field(default_factory=list)

    def move(self, account: str, currency: str, amount: int) -> None:
        self.balances[account, currency] += amount

    def counts_in(self, occurred: int) -> int:
        """Return the month in which something of another one counts: itself, or the first one that is open."""
        return max(occurred, self.closed + 1)

    def value(self, output: Output, paid: Paid) -> int:
        output.state, output.paid, output.month = "valued", paid, self.counts_in(output.occurred)
        self.opened.add(output.month)
        return output.month

    def unvalue(self, output: Output, reason: str) -> int:
        """Take an output out; return the month in which that counts."""
        if output.state == "valued" or output.state == "reversed":
            raise RefusedError
        output.state, output.history, output.reason = "unvalued", True, reason
        output.month = self.counts_in(output.occurred)
        self.opened.add(output.month)
        return output.month

    def restore(self, output: Output) -> int:
        """Let an output wait again; return the month in which that is said."""
        output.state, month = "waiting", self.counts_in(output.month)
        self.opened.add(month)
        return month

    def outputs_of(self, month: int) -> list[Output]:
        return [output for output in self.outputs if output.state == "valued" and output.month == month]

    def credits(self) -> dict[str, int]:
        """Return what the journal's accounts of credits hold, collections taken together.

        Each output pays alone until the close of its month adds up what is to be.
        """
        alone = [(item, Paid(item.paid.measure)) for item in self.outputs if item.month > self.closed]
        parts = [closed.credited for closed in self.closes.values()]
        parts.append(month_credits("", [pair for pair in alone if pair[0].state == "valued"]))
        found: dict[str, int] = defaultdict(int)
        for part in parts:
            for key, micro in part.items():
                found[f"credits:earned:{whose(key)}"] += micro
        found["credits:unvalued"] = sum(item.weight for item in self.outputs if item.state == "unvalued")
        found["credits:issued"] = -sum(found.values())
        return {key: micro for key, micro in found.items() if micro}

    def add_pool(self, month: int, pool: Pool) -> None:
        self.opened.add(month)
        self.pools[month].append(pool)
        self.move("money:external", pool.currency, -pool.net)
        self.move(f"money:pool:{month_name(month)}", pool.currency, pool.net)

    def adjust(self, month: int, provider: str, currency: str, amount: int) -> None:
        self.opened.add(month)
        self.moves[month][provider, currency] += amount
        self.move(f"money:payable:{provider}", currency, amount)
        self.move("money:payable:house", currency, -amount)

    def advance(self, month: int, provider: str, currency: str, amount: int) -> None:
        self.opened.add(month)
        self.advances[provider, currency].append((month, amount))
        self.move(f"money:advance:{provider}", currency, -amount)
        self.move("money:external", currency, amount)

    def reverse(self, number: int) -> None:
        item = self.posted[number]
        is_open = item.month > self.closed
        month = item.month if is_open else self.closed + 1
        match item.kind, item.what:
            case "credits", Output() as output if is_open:
                self.opened.add(month)
                output.state = "reversed"
            case "restatement", (int(), dict() as moved) if any(key.startswith("money:held") for key, _ in moved):
                raise RefusedError
            case "restatement", (int() as restated, dict() as moved):
                self._move_restated(restated, month, {key: -amount for key, amount in moved.items()})
            case "pool", Pool() as pool if is_open:
                pool.standing = False
                self.move("money:external", pool.currency, pool.net)
                self.move(f"money:pool:{month_name(month)}", pool.currency, -pool.net)
            case "adjustment", (provider, currency, amount):
                self.adjust(month, provider, currency, -amount)
            case "advance", (provider, currency, amount) if self.outstanding((provider, currency), month) >= amount:
                self.advance(month, provider, currency, -amount)
            case _:
                raise RefusedError
        item.reversed = True

    def outstanding(self, key: Key, month: int) -> int:
        return sum(amount for when, amount in self.advances[key] if when <= month)

    def close(self, month: int, house: str, leave_pending: bool) -> dict[Key, dict[str, int]]:
        """Close a month; return every balance's lines."""
        if month <= self.closed or any(other < month for other in self.opened if other > self.closed):
            raise RefusedError
        if month not in self.opened and all(output.occurred != month for output in self.outputs):
            raise RefusedError
        if not leave_pending and any(item.state == "waiting" and item.occurred <= month for item in self.outputs):
            raise RefusedError
        credited = month_credits(month_name(month), [(output, output.paid) for output in self.outputs_of(month)])
        money = [pool for pool in self.pools[month] if pool.standing]
        if not money and any(credited.values()):
            raise RefusedError
        owed = self.owed(month, credited, house, self.terms, self.held_lines)
        earned: dict[Key, int] = defaultdict(int)
        kept: dict[Key, int] = defaultdict(int)
        for (account, code), amount in owed.items():
            earned[whose(account), code] += amount
            kept[whose(account), code] += amount if account.startswith("money:held") else 0
        keys = {*earned, *self.carried, *self.moves[month], *self.reserves, *self.advances}
        keys |= {(whose(account), code) for account, code in self.balances if account.startswith("money:held")}
        keys = {key for key in keys if key[0] in PROVIDERS}
        elsewhere = {key for key in keys if self.terms.get(key, Agreed()).pay_in}
        if month not in self.rates and any(self.converts(key, month, earned[key] - kept[key]) for key in elsewhere):
            raise RefusedError
        for pool in money:
            self.move(f"money:pool:{month_name(month)}", pool.currency, -pool.net)
        for (account, currency), amount in owed.items():
            self.move(account, currency, amount)
        lines, converted = {}, defaultdict(int)
        for key in sorted(elsewhere):
            lines[key] = self._settle(key, month, earned[key], kept[key], 0)
            converted[key[0], self.terms[key].pay_in] += self._convert(month, lines[key]["converted_out"])
        for key in {*keys, *(key for key, amount in converted.items() if amount)} - elsewhere:
            lines[key] = self._settle(key, month, earned[key], kept[key], converted[key])
        self.closes[month] = Closed(house, dict(self.terms), credited, frozenset(self.held_lines))
        self.opened.add(month)
        self.closed = month
        return lines

    def owed(
        self, month: int, credited: dict[str, int], house: str, terms: dict[Key, Agreed], held: Collection[str]
    ) -> dict[Key, int]:
        """Return what a month's pools, divided by credits, put into which account, by (account, currency)."""
        money = [pool for pool in self.pools[month] if pool.standing]
        sharing = {
            key: micro for key, micro in by_provider(credited).items() if house != "redistribute" or key in PROVIDERS
        }
        if any(pool.net for pool in money) and not any(sharing.values()):
            raise RefusedError
        owed: dict[Key, int] = defaultdict(int)
        for pool in money:
            for key, amount in divide(month_name(month), pool.net, sharing).items():
                if key in HOUSE:
                    owed["money:escrow" if house == "escrow" else "money:payable:house", pool.currency] += amount
                    continue
                cut = share(amount, 1_000_000 - terms.get((key, pool.currency), Agreed()).rate)
                for line in held:
                    if whose(line) == key and sharing[key]:
                        part = Fraction((amount - cut) * credited.get(line.removesuffix("/default"), 0), sharing[key])
                        owed[f"money:held:{line}", pool.currency] += floor(part)
                        owed[f"money:payable:{key}", pool.currency] -= floor(part)
                owed[f"money:payable:{key}", pool.currency] += amount - cut
                owed["money:payable:house", pool.currency] += cut
        return owed

    def restate(self, month: int, changes: dict[str, str]) -> tuple[dict[str, int], dict[Key, int]]:
        """Move, in the open month, what a closed one would have paid by other policies.

        Return the credits that it would have had, and what is moved by account.
        """
        anew = [(output, output.paid._replace(**changes)) for output in self.outputs_of(month)]
        credited = month_credits(month_name(month), anew)
        closed = self.closes[month]
        before = self.owed(month, closed.credited, closed.house, closed.terms, closed.held)
        after = self.owed(month, credited, closed.house, closed.terms, closed.held)
        moved: dict[Key, int] = defaultdict(int)
        for sign, amounts in ((1, after), (-1, before), (-1, dict(closed.moved))):
            for key, amount in amounts.items():
                moved[closed.place(*key)] += sign * amount
        moved = {key: amount for key, amount in moved.items() if amount}
        self._move_restated(month, self.closed + 1, moved)
        return by_provider(credited), moved

    def _move_restated(self, restated: int, month: int, moved: dict[Key, int]) -> None:
        if moved:
            self.opened.add(month)
        for (account, currency), amount in moved.items():
            self.move(account, currency, amount)
            self.moves[month][account.rpartition(":")[2], currency] += amount
            self.closes[restated].moved[account, currency] += amount

    def export(self, month: int, currency: str, status: str) -> list[Payout]:
        """Let the payouts of a month leave that are pending, or failed; those on hold stay."""
        left = [
            item
            for item in self.payouts
            if (item.month, item.currency, item.status) == (month, currency, status) and item.provider not in self.held
        ]
        for item in left:
            item.status = "exported"
            self.move(f"money:payout:{item.provider}", currency, -item.amount)
            self.move(f"money:payout:{item.provider}/exported", currency, item.amount)
        return left

    def confirm(self, item: Payout, status: str) -> None:
        item.status = "failed" if status == "returned" else status
        source = "money:external" if status == "returned" else f"money:payout:{item.provider}/exported"
        self.move(source, item.currency, -item.amount)
        to = "money:external" if status == "paid" else f"money:payout:{item.provider}"
        self.move(to, item.currency, item.amount)

    def void(self, item: Payout, goes_to: str) -> None:
        """Give a payout, and what was taken from it, to its provider, the house or escrow, in the open month."""
        month = self.closed + 1
        self.opened.add(month)
        item.status = "void"
        whole = item.amount + item.withheld + item.fee
        self.move(f"money:payout:{item.provider}", item.currency, -item.amount)
        self.move(f"money:withholding:{item.provider}", item.currency, -item.withheld)
        self.move("money:fees", item.currency, -item.fee)
        if goes_to == "provider":
            self.moves[month][item.provider, item.currency] += whole
            self.move(f"money:payable:{item.provider}", item.currency, whole)
        else:
            self.move("money:escrow" if goes_to == "escrow" else "money:payable:house", item.currency, whole)

    def remit(self, of: str, currency: str, amount: int) -> None:
        """Let money of the house, or fees, leave in the open month."""
        account = "money:fees" if of == "fees" else "money:payable:house"
        self.opened.add(self.closed + 1)
        self.move(account, currency, -amount)
        self.move("money:external", currency, amount)

    def _convert(self, month: int, amount: int) -> int:
        """Euros to dollars, in cents: the exact product to the nearest cent, a half up."""
        return floor(amount * self.rates[month] + Fraction(1, 2)) if amount else 0

    def freed(self, key: Key) -> dict[Key, int]:
        """Return what a provider's collections earned in a currency while they were on hold, where they are not now."""
        return {
            (account, code): amount
            for (account, code), amount in self.balances.items()
            if account.startswith("money:held") and (whose(account), code) == key and amount
            if account.rpartition(":")[2] not in self.held_lines
        }

    def _parts(self, key: Key, month: int, earned: int, converted: int) -> tuple[int, int, int, int]:
        """Return what is held, released, recouped and owed; `earned` without what is on hold."""
        earned += sum(self.freed(key).values())
        agreed = self.terms.get(key, Agreed())
        released = sum(amount for due, amount in self.reserves[key] if self.closed < due <= month)
        held = share(earned, agreed.reserve)
        before = self.carried[key] + earned + self.moves[month][key] - held + released + converted
        recouped = max(0, min(self.outstanding(key, month), share(earned, agreed.recoupment), before))
        return held, released, recouped, before - recouped

    def converts(self, key: Key, month: int, earned: int) -> bool:
        """Whether a balance is to be converted, so that a rate is needed."""
        pay_in = self.terms.get(key, Agreed()).pay_in
        return bool(pay_in) and key[0] not in self.held and self._parts(key, month, earned, 0)[3] > 0

    def _settle(self, key: Key, month: int, earned: int, kept: int, converted: int) -> dict[str, int]:
        provider, currency = key
        agreed = self.terms.get(key, Agreed())
        opening = self.carried[key]
        held, released, recouped, owed = self._parts(key, month, earned - kept, converted)
        freed = self.freed(key)
        out = owed if self.converts(key, month, earned - kept) and self._convert(month, owed) else 0
        withheld = share(owed, agreed.withholding) if owed > 0 else 0
        net = owed - withheld - agreed.fee
        paid = not agreed.pay_in and owed > 0 and provider not in self.held and net > 0 and net >= agreed.minimum
        lines = {
            "opening": opening,
            "earned": earned,
            "collections_held": kept,
            "collections_released": sum(freed.values()),
            "adjustments": self.moves[month][key],
            "reserve_held": held,
            "reserve_released": released,
            "advances_recouped": recouped,
            "converted_in": converted,
            "converted_out": out,
            "withholding": withheld if paid else 0,
            "fees": agreed.fee if paid else 0,
            "payable": net if paid else 0,
            "carried_forward": 0 if paid or out else owed,
        }
        self.carried[key] = lines["carried_forward"]
        if held:
            self.reserves[key].append((month + agreed.months, held))
        if recouped:
            self.advances[key].append((month, -recouped))
        if paid:
            self.payouts.append(Payout(month, provider, currency, net, withheld, agreed.fee))
        for account, code in freed:
            for closed in self.closes.values():
                closed.released.add((account, code))
        for account, amount in (
            *((account, -amount) for (account, _), amount in freed.items()),
            (f"money:reserve:{provider}", held - released),
            (f"money:advance:{provider}", recouped),
            (f"money:withholding:{provider}", lines["withholding"]),
            ("money:fees", lines["fees"]),
            (f"money:payout:{provider}", lines["payable"]),
            ("money:fx:EUR-USD", out),
        ):
            self.move(account, currency, amount)
            self.move(f"money:payable:{provider}", currency, -amount)
        self.move(f"money:payable:{provider}", currency, converted)
        self.move("money:fx:EUR-USD", currency, -converted)
        return lines
