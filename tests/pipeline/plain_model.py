"""The accounting said once more, as plainly as possible: dicts, fractions, no database. What is tested imports none.

Months are numbered from 0. Amounts are minor units. A provider's money is kept by (provider, currency).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import sha256
from math import floor

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


@dataclass
class Pool:
    net: int
    currency: str
    reference: str
    standing: bool = True


@dataclass
class Posted:
    """A transaction that somebody may want to reverse."""

    kind: str
    month: int
    what: object
    reversed: bool = False


def share(amount: int, ppm: int) -> int:
    return floor(Fraction(amount * ppm, 1_000_000))


def divide(month: str, net: int, credited: dict[str, int]) -> dict[str, int]:
    """Floors of the exact shares; what is left goes to the largest remainders, ties by hash."""
    total = sum(credited.values())
    exact = {key: Fraction(net * micro, total) if total else Fraction(0) for key, micro in credited.items()}
    parts = {key: floor(value) for key, value in exact.items()}
    order = sorted(exact, key=lambda key: (parts[key] - exact[key], sha256(f"{month}\0{key}".encode()).digest()))
    left = net - sum(parts.values()) if total else 0
    for key in order[:left]:
        parts[key] += 1
    return parts


@dataclass
class Model:
    closed: int = -1
    opened: set[int] = field(default_factory=set)
    credits: dict[int, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    pools: dict[int, list[Pool]] = field(default_factory=lambda: defaultdict(list))
    moves: dict[int, dict[Key, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    advances: dict[Key, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    reserves: dict[Key, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    terms: dict[Key, Agreed] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    carried: dict[Key, int] = field(default_factory=lambda: defaultdict(int))
    balances: dict[Key, int] = field(default_factory=lambda: defaultdict(int))
    posted: dict[int, Posted] = field(default_factory=dict)

    def move(self, account: str, currency: str, amount: int) -> None:
        self.balances[account, currency] += amount

    def earn(self, month: int, credited: dict[str, int]) -> None:
        self.opened.add(month)
        for key, micro in credited.items():
            self.credits[month][key] += micro

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
            case "credits", dict() as credited if is_open:
                self.earn(month, {key: -micro for key, micro in credited.items()})
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

    def close(self, month: int, house: str) -> dict[Key, dict[str, int]]:
        """Close a month; return every balance's lines."""
        if month not in self.opened or any(other < month for other in self.opened if other > self.closed):
            raise RefusedError
        credited = dict(self.credits[month])
        money = [pool for pool in self.pools[month] if pool.standing]
        if not money and any(credited.values()):
            raise RefusedError
        sharing = {key: micro for key, micro in credited.items() if house != "redistribute" or key in PROVIDERS}
        if any(pool.net for pool in money) and not any(sharing.values()):
            raise RefusedError
        earned: dict[Key, int] = defaultdict(int)
        for pool in money:
            for key, amount in divide(month_name(month), pool.net, sharing).items():
                self.move(f"money:pool:{month_name(month)}", pool.currency, -amount)
                if key in HOUSE:
                    self.move("money:escrow" if house == "escrow" else "money:payable:house", pool.currency, amount)
                    continue
                cut = share(amount, 1_000_000 - self.terms.get((key, pool.currency), Agreed()).rate)
                earned[key, pool.currency] += amount - cut
                self.move(f"money:payable:{key}", pool.currency, amount - cut)
                self.move("money:payable:house", pool.currency, cut)
        keys = {*earned, *self.carried, *self.moves[month], *self.reserves, *self.advances}
        lines = {key: self._settle(key, month, earned[key]) for key in keys}
        self.closed = month
        return lines

    def _settle(self, key: Key, month: int, earned: int) -> dict[str, int]:
        provider, currency = key
        agreed = self.terms.get(key, Agreed())
        opening, adjusted = self.carried[key], self.moves[month][key]
        released = sum(amount for due, amount in self.reserves[key] if self.closed < due <= month)
        held = share(earned, agreed.reserve)
        before = opening + earned + adjusted - held + released
        recouped = max(0, min(self.outstanding(key, month), share(earned, agreed.recoupment), before))
        owed = before - recouped
        withheld = share(owed, agreed.withholding) if owed > 0 else 0
        net = owed - withheld - agreed.fee
        paid = owed > 0 and provider not in self.held and net > 0 and net >= agreed.minimum
        lines = {
            "opening": opening,
            "earned": earned,
            "adjustments": adjusted,
            "reserve_held": held,
            "reserve_released": released,
            "recouped": recouped,
            "withheld": withheld if paid else 0,
            "fees": agreed.fee if paid else 0,
            "payable": net if paid else 0,
            "carried": 0 if paid else owed,
        }
        self.carried[key] = lines["carried"]
        if held:
            self.reserves[key].append((month + agreed.months, held))
        if recouped:
            self.advances[key].append((month, -recouped))
        for account, amount in (
            (f"money:reserve:{provider}", held - released),
            (f"money:advance:{provider}", recouped),
            (f"money:withholding:{provider}", lines["withheld"]),
            ("money:fees", lines["fees"]),
            (f"money:payout:{provider}", lines["payable"]),
        ):
            self.move(account, currency, amount)
            self.move(f"money:payable:{provider}", currency, -amount)
        return lines
