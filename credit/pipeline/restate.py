"""Restatement: recompute a closed period by another policy, index or rate, and post the difference in the open one.

The closed period and its statements stay the same, byte for byte. The difference is one transaction in the first open
period, shown on its statements. A second restatement posts only its difference to the first; a restatement by the
original policy takes everything back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import Connection

from credit.accounting.apportion import Earning
from credit.accounting.credits import MeasuredOutput, PeriodCredits, Policy
from credit.errors import IntegrityError, InvalidRequestError, LedgerError
from credit.ledger.accounts import AccountKind, parse_account
from credit.ledger.balances import ProviderCurrency, released_accounts
from credit.ledger.corrections import restated_money, restatements
from credit.ledger.credits import credits_by_group, posted_moves
from credit.ledger.database import Ledger
from credit.ledger.holds import held_collections
from credit.ledger.indexes import indexes_in_place, refuse_altered_manifests
from credit.ledger.journal import Entry, Posting, post
from credit.ledger.limits import limited_outputs
from credit.ledger.outputs import outputs_by_id
from credit.ledger.periods import Period, existing_period, open_period_for
from credit.ledger.personal_data import keep_erasable
from credit.ledger.pools import allocations, standing_pools
from credit.ledger.providers import providers
from credit.ledger.score_books import PostedBook, standing_scores
from credit.ledger.terms import terms_on
from credit.ledger.transaction_kinds import RestatementDetails, TransactionKind
from credit.ledger.values import first_day, last_day
from credit.pipeline.close import ClosePolicy
from credit.pipeline.close_pools import divide, owed_to
from credit.pipeline.period_basis import measured_outputs
from credit.pipeline.workspace import Workspace
from credit.records import Group, Terms
from credit.text import counted

Rescore = Callable[[PostedBook, pl.DataFrame], Iterator[tuple[int, MeasuredOutput]]]
"""Yields the id of each output of a score book, with its new measures and its old weight."""

AccountCurrency = tuple[str, str]


@dataclass(frozen=True, slots=True)
class CreditChange:
    """A provider's micro-credits in the closed period: as they were posted, and restated."""

    provider: str
    posted_micro: int
    restated_micro: int


@dataclass(frozen=True, slots=True)
class MoneyChange:
    """Money given to an account by the close, by earlier restatements and by this one, in minor units."""

    account: str
    currency: str
    allocated_minor: int
    restated_before_minor: int
    adjustment_minor: int


@dataclass(frozen=True, slots=True)
class Restatement:
    """Difference made by another policy, index or rate; `txn_id` is None if nothing was posted."""

    period: str
    posted_in: str
    credits: tuple[CreditChange, ...]
    money: tuple[MoneyChange, ...]
    txn_id: int | None
    dry_run: bool


def restate(
    workspace: Workspace,
    ledger: Ledger,
    period: str,
    rescore: Rescore,
    method: Mapping[str, Any],
    *,
    reason: str,
    rates: Mapping[ProviderCurrency, int] | None = None,
    dry_run: bool = False,
    now: datetime | None = None,
) -> Restatement:
    """Recompute a closed period, and post the difference in money in the first open period.

    A restatement replaces the ones before it: what an earlier one corrected has to be named again.

    Args:
        workspace: its score books are read.
        ledger: the ledger of the workspace, open.
        period: the closed period `YYYY-MM`.
        rescore: measures the outputs anew; from `by_policy` or `by_index`.
        method: the same as data: `policy`, the changes of the policy, and `index`, the fingerprint of the index if one
            was asked. Stored with the transaction; a close uses it to look for the certificate.
        reason: printed on the statements.
        rates: agreed rates as they should have been, in parts per million, by provider and currency. Tax, fees,
            reserves and recoupment of the close stay: they were taken from what was paid.
        dry_run: post nothing.
        now: moment of recording.

    Raises:
        LedgerError: the period is not closed, or a reason is missing.
        IntegrityError: a score book is not what was registered, or the ledger contradicts itself.
        InvalidRequestError: the score books do not hold what the policy needs, or a rate is of nobody who earned.
    """
    rates = rates or {}
    if rates:
        method = {**method, "rates": {f"{provider}:{currency}": rate for (provider, currency), rate in rates.items()}}
    if not reason.strip():
        raise LedgerError(f"a restatement of {period} needs a reason: --reason")
    with ledger.read() as conn:
        found = existing_period(conn, period)
        if found.status != "closed":
            raise LedgerError(f"period {period} is open, it has paid nobody yet; there is nothing to restate")
        keep_erasable(conn, reason, "the reason")
        posted, restated = _credits(conn, workspace, period, rescore, method.get("policy", {}))
    changes = _credit_changes(posted, restated)
    # A dry run takes the write lock too: its numbers must fit the ledger of one moment.
    with ledger.write() as conn:
        money = _money_changes(conn, found, posted, restated, rates)
        target = open_period_for(conn, first_day(period))
        txn_id = None
        if not dry_run:
            txn_id = _post_difference(
                conn, period, target, money, changes, method, reason, now=now or datetime.now(UTC)
            )
    return Restatement(period, target, changes, money, txn_id, dry_run)


def _post_difference(
    conn: Connection,
    period: str,
    target: str,
    money: Sequence[MoneyChange],
    changes: Sequence[CreditChange],
    method: Mapping[str, Any],
    reason: str,
    now: datetime,
) -> int | None:
    """Post the adjustments as one transaction of the period `target`; return it, or None if there are none."""
    entries = tuple(
        Entry(item.account, item.currency, item.adjustment_minor) for item in money if item.adjustment_minor
    )
    if not entries:
        return None
    posting = Posting(
        kind=TransactionKind.RESTATEMENT,
        period=target,
        effective_on=first_day(target),
        idempotency_key=TransactionKind.RESTATEMENT.key(period=period, number=len(restatements(conn, period)) + 1),
        entries=entries,
        memo=f"restatement of {period}: {reason}",
        details=RestatementDetails(
            restates=period,
            method=dict(method),
            credit_micro={item.provider: str(item.restated_micro) for item in changes},
        ),
    )
    return post(conn, posting, now=now).txn_id


def by_policy(changes: Mapping[str, Any]) -> Rescore:
    """Return a `Rescore` that reads the measures in the score books and applies a changed policy.

    Args:
        changes: new values, by field of `Policy`; the others stay as they were for each book.

    Raises:
        InvalidRequestError: when called, if the books do not hold what the new policy needs.
    """

    def rescore(book: PostedBook, rows: pl.DataFrame) -> Iterator[tuple[int, MeasuredOutput]]:
        old = Policy.from_json(book.policy_json)
        new = replace(old, **changes)
        return measured_outputs(_measured(rows, old, new), new)

    return rescore


def by_index(ledger: Ledger, folder: Path, changes: Mapping[str, Any]) -> tuple[Rescore, str]:
    """Return a `Rescore` that asks the index in `folder` and its model, with the index's fingerprint.

    The index need not be registered. Future outputs are valued by the registered one. In the folder of a registered
    index, it must be that one: whoever altered it would be paid by it.

    Args:
        ledger: the ledger of the outputs.
        folder: the index.
        changes: new values of the policy, by field of `Policy`; the others stay as they were for each book.

    Raises:
        LedgerError: the index credits an unknown provider, or, when called, is of another model.
        MismatchError, IntegrityError: as opening an index does.
        IntegrityError: the folder is that of a registered index, and holds another one.
    """
    # Models take seconds to import, and a restatement by policy needs none.
    from credit.pipeline.compute import DEFAULT_CHUNK, echo_of_weight, paid_measure
    from credit.pipeline.index import check_providers
    from credit.pipeline.valuing import as_paid
    from credit.valuation import AttributionIndex

    index = AttributionIndex.open(folder, damping=changes.get("damping"))
    model = index.load_model()
    encoder = model.encoder(index.output_length(model))
    with ledger.read() as conn:
        check_providers(conn, index)
        here = [item.fingerprint for item in indexes_in_place(conn) if Path(item.path).resolve() == folder.resolve()]
        refuse_altered_manifests(conn, here)

    def rescore(book: PostedBook, rows: pl.DataFrame) -> Iterator[tuple[int, MeasuredOutput]]:
        policy = replace(Policy.from_json(book.policy_json), **changes)
        ids = rows["output_id"].unique().sort().to_list()
        for start in range(0, len(ids), DEFAULT_CHUNK):
            with ledger.read() as conn:
                chunk = outputs_by_id(conn, ids[start : start + DEFAULT_CHUNK])
            purged = [stored.output.name for stored in chunk if stored.purged]
            if purged:
                raise LedgerError(
                    f"the texts of {counted(len(purged), 'output')} were purged, the first {purged[0]!r}: no index can"
                    " value them anew; restate by policy, without --index"
                )
            others = sorted({stored.output.model for stored in chunk} - {index.manifest.name})
            if others:
                raise LedgerError(
                    f"{folder} is an index of {index.manifest.name}, but the period has outputs of {others[0]}"
                )
            asked = [as_paid(stored.output, policy) for stored in chunk]
            valued = index.value(model, asked, echo=policy.echo, noise_floor=policy.noise_floor)
            for stored, measures in zip(chunk, paid_measure(valued, policy).tolist(), strict=True):
                item, echo = stored.output, echo_of_weight(encoder, stored.output, policy)
                yield stored.id, MeasuredOutput(policy, item.name, item.weight_micro, index.groups, measures, echo)

    return rescore, index.manifest.fingerprint


def _measured(rows: pl.DataFrame, old: Policy, new: Policy) -> pl.DataFrame:
    """Add the column `measure`: the new policy's measure, in nats."""
    same_effect = (new.alpha, new.beta, new.gamma) == (old.alpha, old.beta, old.gamma)
    uses_floor = new.measure in ("support", "effect")
    if new.echo != old.echo:
        raise InvalidRequestError("another length of echo needs the index and its model: --index DIR")
    if new.damping != old.damping:
        raise InvalidRequestError("another damping needs the index and its model: --index DIR")
    if new.thoughts != old.thoughts:
        raise InvalidRequestError("other --thoughts need the index and its model: --index DIR")
    if uses_floor and new.noise_floor != old.noise_floor:
        raise InvalidRequestError(
            f"{new.measure} above a noise floor of {new.noise_floor} needs the index and its model: --index DIR"
            f" (the score books hold it above {old.noise_floor})"
        )
    support, effect = pl.col("support"), pl.col("effect")
    if new.measure != "effect":
        measure = pl.col(new.measure)
    elif same_effect:
        measure = effect
    elif new.alpha == old.alpha and new.gamma == old.gamma:
        measure = effect + (new.beta - old.beta) * support
    elif new.alpha == 0 and new.gamma == 0:
        measure = new.beta * support
    elif old.alpha and new.gamma == old.gamma == 0:
        measure = new.alpha / old.alpha * (effect - old.beta * support) + new.beta * support
    else:
        raise InvalidRequestError(
            "the score books hold effect and support; effect with those weights does not follow and needs the "
            "index and its model: --index DIR"
        )
    return rows.with_columns(measure.alias("measure"))


def _credits(
    conn: Connection, workspace: Workspace, period: str, rescore: Rescore, changes: Mapping[str, Any]
) -> tuple[Mapping[Group, int], Mapping[Group, int]]:
    """Return every group's micro-credits before and after; outputs with reversed credits count in neither."""
    posted = credits_by_group(conn, period)
    restated = dict(posted)
    # Out with all that the close and the books gave, in with the new credits: what else was posted stays.
    for group, micro in posted_moves(conn, period).items():
        restated[group] = restated.get(group, 0) - micro
    anew, limited = PeriodCredits(period), limited_outputs(conn, period, changes)
    for book, rows in standing_scores(conn, workspace.books, period):
        before = 0
        sums = rows.group_by("provider", "collection").agg(pl.col("credit_micro").sum())
        for provider, collection, micro in sums.iter_rows():
            group = Group(provider, collection)
            restated[group] = restated.get(group, 0) - micro
            before += micro
        after = 0
        for number, item in rescore(book, rows):
            anew.add(item.counted(limited[number].counted_micro) if number in limited else item)
            after += item.weight_micro
        # Other weights would create or destroy credits of a closed period.
        if before != after:
            raise IntegrityError(f"score book {book.sha256} distributed {before} micro-credits, restated {after}")
    for group, micro in anew.totals().items():
        restated[group] = restated.get(group, 0) + micro
    return posted, restated


def _credit_changes(posted: Mapping[Group, int], restated: Mapping[Group, int]) -> tuple[CreditChange, ...]:
    """Return every provider's credits before and after."""
    before, after = _by_provider(posted), _by_provider(restated)
    return tuple(CreditChange(key, before.get(key, 0), after[key]) for key in sorted(after))


def _by_provider(credited: Mapping[Group, int]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for group, micro in credited.items():
        sums[group.provider] = sums.get(group.provider, 0) + micro
    return sums


def _money_changes(
    conn: Connection,
    closed: Period,
    posted: Mapping[Group, int],
    restated: Mapping[Group, int],
    rates: Mapping[ProviderCurrency, int],
) -> tuple[MoneyChange, ...]:
    """Divide the pools by the restated credits and rates as the close did, and compare.

    Earnings of a collection on hold, and their difference, belong to the account of that collection. If it was
    released since, they belong to the provider.
    """
    period = closed.id
    policy = ClosePolicy.from_json(closed.close_policy_json or "{}")
    on_hold = held_collections(conn, until=closed.closed_at)
    released = released_accounts(conn, after=period)
    known = {item.key: item for item in providers(conn)}
    terms = terms_on(conn, last_day(period))
    money = standing_pools(conn, period)

    corrected = dict(terms)
    for (owner, currency), rate in rates.items():
        is_provider = owner in known and known[owner].kind == "provider"
        if not is_provider or currency not in {item.currency for item in money}:
            raise InvalidRequestError(
                f"{owner} earned nothing in {currency} in {period}: a rate is of a provider and the currency of a pool"
            )
        corrected[owner, currency] = replace(terms.get((owner, currency), Terms()), rate_ppm=rate)

    def divided(
        credited: Mapping[Group, int], terms: Mapping[ProviderCurrency, Terms]
    ) -> list[tuple[str, int, tuple[Earning, ...]]]:
        held = {group: credited.get(group, 0) for group in on_hold}
        found = divide(period, money, _by_provider(credited), known, terms, policy.house, held)
        return [(pool.currency, pool.id, earnings) for pool, earnings in found]

    def owed(parts: list[tuple[str, int, tuple[Earning, ...]]]) -> dict[AccountCurrency, int]:
        sums: dict[AccountCurrency, int] = {}
        for currency, _, earnings in parts:
            for key, amount in owed_to(earnings, known, policy.house).items():
                place = _place(key, currency, released)
                sums[place] = sums.get(place, 0) + amount
        return sums

    # The close again, as a check: a difference to other numbers than the recorded ones would pay wrongly.
    as_closed = divided(posted, terms)
    recorded = {(item.pool_id, item.provider): item.amount_minor for item in allocations(conn, period)}
    again = {(number, part.share.provider): part.share.amount_minor for _, number, parts in as_closed for part in parts}
    if {key: amount for key, amount in recorded.items() if amount} != {k: a for k, a in again.items() if a}:
        raise IntegrityError(f"the allocations of {period} contradict its credits; run credit verify")
    before, after = owed(as_closed), owed(divided(restated, corrected))
    moved: dict[AccountCurrency, int] = {}
    for (key, currency), amount in restated_money(conn, period).items():
        place = _place(key, currency, released)
        moved[place] = moved.get(place, 0) + amount
    return tuple(
        MoneyChange(
            *key,
            allocated_minor=before.get(key, 0),
            restated_before_minor=moved.get(key, 0),
            adjustment_minor=after.get(key, 0) - before.get(key, 0) - moved.get(key, 0),
        )
        for key in sorted({*before, *after, *moved})
    )


def _place(key: str, currency: str, released: Set[AccountCurrency]) -> AccountCurrency:
    """Return the present account of an account's money: the provider's, after a held collection was released."""
    provider = parse_account(key).provider or ""
    return AccountKind.PAYABLE.key(provider) if (key, currency) in released else key, currency
