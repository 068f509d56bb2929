"""The close of a period: it divides pools by credits, decides payouts, writes statements and freezes the period.

One database transaction does all of it, in this order: `period_basis` moves credits by the sums of the period,
`certification` checks the certificates and `reviews` the reviews, `close_pools` turns pools into earnings, and
`close_balances` turns earnings into the lines of a balance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

from sqlalchemy import Connection

from credit.accounting.amounts import format_percent
from credit.accounting.apportion import Earning
from credit.accounting.comparison import History
from credit.accounting.statement import (
    Certainty,
    PoolShare,
    StatementInput,
    Uncounted,
    Validation,
    statement_json,
)
from credit.accounting.waterfall import Waterfall
from credit.errors import InvalidRequestError, LedgerError
from credit.ledger.approvals import previewing
from credit.ledger.balances import ProviderCurrency
from credit.ledger.corrections import corrections
from credit.ledger.credits import Concentration, concentration, credit_methods, credit_totals, credits_by_month
from credit.ledger.database import Ledger
from credit.ledger.holds import held_collections, holds
from credit.ledger.indexes import refuse_altered_manifests
from credit.ledger.journal import chain_head
from credit.ledger.outputs import pending_count, pending_names
from credit.ledger.payee_accounts import account_changes
from credit.ledger.periods import close_lock, mark_closed, unclosed_before
from credit.ledger.personal_data import keep_erasable
from credit.ledger.pools import Pool, reserves, standing_pools
from credit.ledger.providers import providers
from credit.ledger.seals import seal_head
from credit.ledger.statements import add_statements, earlier_statements, issuers
from credit.ledger.terms import terms_on
from credit.ledger.unvalued import unvalued_outputs
from credit.ledger.values import first_day, following, last_day
from credit.pipeline.certification import certify, share_certainties
from credit.pipeline.close_balances import balance_inputs, post_lines, settle_all
from credit.pipeline.close_pools import HousePolicy, divide, earned_in, post_allocations
from credit.pipeline.period_basis import Moves, post_moves
from credit.pipeline.reviews import with_reviews
from credit.records import (
    MAX_OUTPUT_SHARE,
    MIN_FIDELITY,
    PPM,
    Correction,
    Group,
    Provider,
    Terms,
    is_acceptance,
    is_period,
)
from credit.storage import canonical_json
from credit.text import counted

_FEW_OUTPUTS = 20
"""With fewer outputs, each decides a large share without anything being wrong."""
_NAMED = 5
"""Pending outputs that the refusal of a close names."""


@dataclass(frozen=True, slots=True)
class ClosePolicy:
    """The rules of a close; the ledger keeps them with the period as JSON.

    Attributes:
        house: the use of money without a provider who earned it.
        grace_days: days to wait after the period's end for late outputs.
        leave_pending: close in spite of pending outputs; a later period credits them.
        min_fidelity: the least LDS of a certificate, as a fraction of the noise ceiling.
        unvalidated: the reason for paying without such a certificate; empty where there is one.
        unreviewed: the reason for paying without reviews of the data of each index; empty where there are all.
        max_output_share: the largest share of the credits that one output or one user may decide, of 20 outputs or
            more.
        accepted_concentration: the name of a person who accepts a larger share, with the reason: `NAME: reason`.
    """

    house: HousePolicy = "return"
    grace_days: int = 0
    leave_pending: bool = False
    min_fidelity: float = MIN_FIDELITY
    unvalidated: str = ""
    unreviewed: str = ""
    max_output_share: float = MAX_OUTPUT_SHARE
    accepted_concentration: str = ""

    def __post_init__(self) -> None:
        if self.house not in get_args(HousePolicy):
            raise InvalidRequestError(f"house is {self.house!r}; it must be one of {get_args(HousePolicy)}")
        if self.grace_days < 0:
            raise InvalidRequestError(f"a grace of {self.grace_days} days ends before the period; give 0 or more")
        if not 0 <= self.min_fidelity <= 1:
            raise InvalidRequestError(f"a fidelity of {self.min_fidelity} is not between 0 and 1, the noise ceiling")
        for name, reason in (("unvalidated", self.unvalidated), ("unreviewed", self.unreviewed)):
            if reason != reason.strip() or not reason.isprintable():
                raise InvalidRequestError(f"the reason for closing {name} is one line of text without outer spaces")
        if not 0 <= self.max_output_share <= 1:
            raise InvalidRequestError(f"a share of {self.max_output_share} is not between 0 and 1, the whole period")
        if self.accepted_concentration and not is_acceptance(self.accepted_concentration):
            raise InvalidRequestError("a concentration is accepted by name, in one line of text: NAME: reason")

    def to_json(self) -> str:
        """Return the policy as canonical JSON."""
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ClosePolicy:
        """Read a policy from the JSON of `to_json`; a missing field has its default."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class CloseReport:
    """The result of a close, or of its dry run: the earnings from each pool, and every provider's balances."""

    period: str
    policy: ClosePolicy
    validation: Validation
    concentration: Concentration | None
    earnings: tuple[tuple[Pool, tuple[Earning, ...]], ...]
    waterfalls: tuple[Waterfall, ...]
    corrections: tuple[Correction, ...]
    statements: int
    left_pending: int
    unvalued: tuple[str, ...]
    uncounted: Uncounted | None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class _Facts:
    """The facts of a close for its statements."""

    period: str
    known: Mapping[str, Provider]
    terms: Mapping[ProviderCurrency, Terms]
    divided: Sequence[tuple[Pool, tuple[Earning, ...]]]
    corrected: Sequence[Correction]
    waterfalls: Sequence[Waterfall]
    validation: Validation
    certainties: Mapping[str, Certainty]
    credits: Mapping[Group, Mapping[str, int]]
    unvalued: tuple[str, ...]
    moves: Moves


def close_period(
    ledger: Ledger,
    period: str,
    policy: ClosePolicy | None = None,
    *,
    books: Path | None = None,
    dry_run: bool = False,
    now: datetime | None = None,
) -> CloseReport:
    """Close a period in one transaction, wholly or not at all.

    Args:
        ledger: the ledger.
        period: the period `YYYY-MM`.
        policy: the rules; None for the defaults.
        books: the folder of the score books. Without it, statements give no interval of a share, and a policy that
            sums over the period cannot be closed.
        dry_run: report the result, and keep nothing of it.
        now: when the ledger records it.

    Raises:
        InvalidRequestError: `period` is not a month YYYY-MM.
        PeriodClosedError: the period is closed already.
        LedgerError: the period (or its grace) is not over, an earlier one is open, outputs are pending, one output
            decides too much, the index or policy is not validated, the index's data was not reviewed, or there is no
            pool.
        IntegrityError: somebody altered an index after its credits were posted.
    """
    rules, moment = policy or ClosePolicy(), now or datetime.now(UTC)
    with ledger.write(sorting=True) as conn:
        if not dry_run:
            return close_in(conn, period, rules, books, moment)
        with previewing(conn, moment):  # which also lets one person look where two must close
            report = close_in(conn, period, rules, books, moment)
    return replace(report, dry_run=True)


def close_in(conn: Connection, period: str, policy: ClosePolicy, books: Path | None, now: datetime) -> CloseReport:
    """Close a period in the transaction of `Ledger.write`, as `close_period` does."""
    now = now.astimezone(UTC)
    if not is_period(period):
        raise InvalidRequestError(f"{period!r} is not a period; a period is a month, written YYYY-MM")
    # UTC, as the moments of outputs: a period ends for everybody at once.
    over = first_day(following(period)) + timedelta(days=policy.grace_days)
    if now.date() < over:
        grace = f", with {policy.grace_days} days of grace," if policy.grace_days else ""
        raise LedgerError(f"period {period}{grace} is not over; it can be closed from {over} (UTC) on")
    close_lock(conn, period, now=now)  # before any read: nobody may post into the period from here on
    for reason in (policy.unvalidated, policy.unreviewed):
        keep_erasable(conn, reason, "the reason")
    keep_erasable(conn, policy.accepted_concentration, "the acceptance")
    pending = _check_ready(conn, period, policy)
    concentrated = _check_concentration(conn, period, policy)
    refuse_altered_manifests(conn, {method.index_fingerprint for method in credit_methods(conn, period)})
    facts = _settle(conn, period, policy, books, now)
    written = len(add_statements(conn, facts.period, _statements(conn, facts), now=now))
    mark_closed(conn, period, policy_json=policy.to_json(), now=now)
    return CloseReport(
        period=period,
        policy=policy,
        validation=facts.validation,
        concentration=concentrated,
        earnings=tuple(facts.divided),
        waterfalls=tuple(facts.waterfalls),
        corrections=tuple(facts.corrected),
        statements=written,
        left_pending=pending,
        unvalued=facts.unvalued,
        uncounted=_uncounted(facts.moves),
    )


def _check_ready(conn: Connection, period: str, policy: ClosePolicy) -> int:
    """Return the number of pending outputs left for later; LedgerError if they hold up the close."""
    earlier = unclosed_before(conn, period)
    if earlier:
        raise LedgerError(f"period {earlier[0]} is still open; close it first: credit close {earlier[0]}")
    # An output of weight 0 earns nothing, so it holds nothing up.
    pending = pending_count(conn, through=period, weighty=True)
    if pending and not policy.leave_pending:
        late = pending - pending_count(conn, since=period, through=period, weighty=True)
        which = f"of {period}" if not late else f"up to the end of {period} ({late} of earlier months)"
        names = pending_names(conn, through=period, limit=_NAMED)
        more = ", ..." if pending > len(names) else ""
        raise LedgerError(
            f"not valued yet: {counted(pending, 'output')} {which} ({', '.join(names)}{more}); run credit compute, or"
            " credit them in a later period with --leave-pending; take out an output that can never be valued:"
            f' credit outputs unvalue {names[0]} --reason "..."'
        )
    return pending


def _check_concentration(conn: Connection, period: str, policy: ClosePolicy) -> Concentration | None:
    """Return the concentration of a period's credits; LedgerError where one output or user decides too much of them."""
    found = concentration(conn, period)
    if found is None or found.outputs < _FEW_OUTPUTS or policy.accepted_concentration:
        return found
    for what, decider in (("output", found.output), ("user", found.user)):
        if decider is not None and decider.credit_micro > policy.max_output_share * found.credit_micro:
            share, most = map(format_percent, (decider.share_ppm, round(policy.max_output_share * PPM)))
            raise LedgerError(
                f"{what} {decider.name} decides {share} of the credits of {period}, more than {most}; find out why."
                f" If it is right, somebody accepts it by name:"
                f' credit close {period} --accept-concentration "NAME: reason"'
            )
    return found


def _settle(conn: Connection, period: str, policy: ClosePolicy, books: Path | None, now: datetime) -> _Facts:
    """Divide the pools, decide payouts, and post all of it."""
    # First: everything below reads the credits that this moves.
    moves = post_moves(conn, books, period, now)
    money = standing_pools(conn, period)
    credited = credit_totals(conn, period)
    if not money and any(credited.values()):
        raise LedgerError(
            f"period {period} has credits but no pool; add one: credit pool add {period} AMOUNT CURRENCY "
            "(an amount of 0 if there is nothing to distribute)"
        )
    certified = certify(conn, period, minimum=policy.min_fidelity, unvalidated=policy.unvalidated)
    validation = with_reviews(conn, period, certified, unreviewed=policy.unreviewed)
    certainties = {} if books is None else share_certainties(conn, books, period)
    known = {provider.key: provider for provider in providers(conn)}
    terms = terms_on(conn, last_day(period))
    corrected = corrections(conn, period)
    by_month = credits_by_month(conn, period)
    on_hold = held_collections(conn)
    held = {group: sum(by_month.get(group, {}).values()) for group in on_hold}
    divided = divide(period, money, credited, known, terms, policy.house, held)
    inputs = balance_inputs(conn, period, earned_in(divided), corrected, terms, holds(conn))
    falls = settle_all(inputs, known)
    post_allocations(conn, period, divided, known, policy.house, on_hold, now)
    post_lines(conn, period, falls, terms, now)
    unvalued = tuple(item.output for item in unvalued_outputs(conn, period))
    return _Facts(period, known, terms, divided, corrected, falls, validation, certainties, by_month, unvalued, moves)


def _uncounted(moves: Moves, provider: str = "") -> Uncounted | None:
    """Return what the limits on users left out, and the part of a provider; None if they left out nothing."""
    if not moves.limited:
        return None
    repeats = sum(item.is_repeat for item in moves.limited)
    own = sum(micro for group, micro in moves.uncounted.items() if group.provider == provider)
    total = sum(item.lost_micro for item in moves.limited)
    return Uncounted(repeats, len(moves.limited) - repeats, total, own)


def _statements(conn: Connection, facts: _Facts) -> Iterator[tuple[str, str]]:
    """Yield the key and the statement of every provider with credits, money or corrections."""
    collections: dict[str, dict[str, Mapping[str, int]]] = {}
    total = 0
    for group, months in facts.credits.items():
        collections.setdefault(group.provider, {})[group.collection] = months
        total += sum(months.values())
    falls: dict[str, list[Waterfall]] = {}
    for fall in facts.waterfalls:
        falls.setdefault(fall.provider, []).append(fall)
    shares: dict[str, list[PoolShare]] = {}
    # By name: two ledgers that got the same pools in another order write the same statement.
    for pool, earnings in sorted(facts.divided, key=lambda divided: (divided[0].currency, divided[0].reference)):
        for item in earnings:
            share = PoolShare(pool.reference, pool.currency, pool.net_minor, item)
            shares.setdefault(item.share.provider, []).append(share)
    corrected: dict[str, list[Correction]] = {}
    for line in facts.corrected:
        corrected.setdefault(line.provider, []).append(line)
    methods = credit_methods(conn, facts.period)
    histories = _histories(conn, facts.period)
    releases: dict[str, dict[str, dict[str, int]]] = {}
    for kept in reserves(conn, after=facts.period):
        of_period = releases.setdefault(kept.provider, {}).setdefault(kept.currency, {})
        of_period[kept.release_period] = of_period.get(kept.release_period, 0) + kept.amount_minor
    accounts = account_changes(conn)
    # Before the statements are written: each then names a head that it cannot change itself.
    (_, head), (_, sealed) = chain_head(conn), seal_head(conn)
    issued_by = asdict(issuer[-1].issuer) if (issuer := issuers(conn)) else {}
    # The house is told nothing: its own data earns no payment.
    told = [key for key in sorted(collections.keys() | falls.keys()) if facts.known[key].kind == "provider"]
    for key in told:
        own = falls.get(key, ())
        agreed = {fall.currency: facts.terms.get((key, fall.currency), Terms()) for fall in own}
        statement = StatementInput(
            provider=key,
            name=facts.known[key].name,
            period=facts.period,
            collections=collections.get(key, {}),
            total_credit_micro=total,
            shares=shares.get(key, ()),
            waterfalls=own,
            corrections=corrected.get(key, ()),
            terms=agreed,
            policies=tuple({method.policy_json for method in methods}),
            indexes=tuple({method.index_fingerprint for method in methods}),
            chain_head=head,
            seal_head=sealed,
            validation=facts.validation,
            certainty=facts.certainties.get(key),
            outputs_unvalued=len(facts.unvalued),
            issuer=issued_by,
            account_changes=accounts.get(key, ()),
            uncounted=_uncounted(facts.moves, key),
            history=histories.get(key, History()),
            releases=releases.get(key, {}),
        )
        yield key, statement_json(statement)


def _histories(conn: Connection, period: str) -> dict[str, History]:
    """Return what each provider was told before a period."""
    found, before = dict[str, History](), ""
    for item in earlier_statements(conn, period):
        history = found.setdefault(item.provider, History())
        body = json.loads(item.body_json)
        if item.period[:4] == period[:4]:
            history.add(body)
        # They come by period: whoever got none for the last is compared with nothing.
        if item.period > before:
            before = item.period
            for other in found.values():
                other.before = None
        history.before = body
    return found
