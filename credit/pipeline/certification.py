"""The check that a period's credits rest on a validated index and policy, and the words for its statements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from credit.accounting.credits import Policy
from credit.accounting.statement import Certainty, Validation, ValidationCheck
from credit.errors import LedgerError
from credit.fidelity.certificate import (
    BM25,
    COUNTERFACTUALS,
    TOKEN_SHARE,
    Certificate,
    MethodScore,
    counting,
    period_attribution_error,
)
from credit.fidelity.intervals import ShareBootstrap
from credit.fidelity.metrics import Estimate
from credit.ledger.credits import CreditMethod, credit_methods, standing_restatements
from credit.ledger.indexes import RegisteredCertificate, certificates, indexes
from credit.ledger.providers import providers
from credit.ledger.score_books import standing_scores

_NOTHING = "Nobody has checked whether these credits predict what the model would do without your data."
_QUICK = (
    "On {day} the estimate was compared only with the model's reaction to a small step away from each provider's data."
    " No model was trained without anybody's data, so that nobody knows how well the credits predict what would happen"
    " then."
)
_OTHER_SETTINGS = (
    "A check by retraining of {day} is about other settings than those of these credits, so that it says nothing about"
    " them."
)


@dataclass(frozen=True, slots=True)
class _Found:
    """A method with its certificate, and the shortcomings of it."""

    method: CreditMethod
    policy: Policy
    certificate: Certificate | None
    registered_at: datetime | None
    faults: tuple[str, ...]


def certify(conn: Connection, period: str, *, minimum: float, unvalidated: str) -> Validation:
    """Return the validation of a period for its statements.

    Restatements of earlier periods count too, for this period pays the difference. Of an index's certificates, the last
    one by retraining counts, or else the last quick one.

    Args:
        conn: from `Ledger.read` or `Ledger.write`.
        period: the period `YYYY-MM`.
        minimum: the least LDS, as a fraction of the noise ceiling.
        unvalidated: the reason for paying without a sufficient certificate, or empty.

    Raises:
        LedgerError: a certificate is missing or not enough, and there is no reason; or there is one without need.
        IntegrityError: a certificate differs from its registration.
    """
    registered = certificates(conn)
    found = [_find(method, registered, minimum) for method in deciding_methods(conn, period)]
    bad = [item for item in found if item.faults]
    if bad and not unvalidated:
        models = {index.fingerprint: index.model for index in indexes(conn)}
        raise LedgerError(
            _refusal(period, bad[0], models.get(bad[0].method.index_fingerprint, "a model not known here"))
        )
    # A reason without need would print a warning on statements that deserve none.
    if found and not bad and unvalidated:
        raise LedgerError(f"all that {period} was computed with is validated; close it without --unvalidated")
    words = [sentence for item in found for sentence in _words(item)]
    return Validation(tuple(_check(item) for item in found), tuple(dict.fromkeys(words)), unvalidated)


def deciding_methods(conn: Connection, period: str) -> list[CreditMethod]:
    """Return the methods that decide the credits of a period, and what it pays for restated earlier ones; sorted."""
    return sorted({*credit_methods(conn, period), *_restated_methods(conn, period)})


def _restated_methods(conn: Connection, period: str) -> Iterator[CreditMethod]:
    """Yield the methods of restatements of earlier periods, the difference of which this period pays."""
    for done in standing_restatements(conn, period):
        for method in credit_methods(conn, done.restates):
            policy = replace(Policy.from_json(method.policy_json), **done.policy_changes)
            yield CreditMethod(done.index_fingerprint or method.index_fingerprint, policy.to_json())


def _find(method: CreditMethod, registered: Sequence[RegisteredCertificate], minimum: float) -> _Found:
    policy = Policy.from_json(method.policy_json)
    best = counting(registered, method)
    if best is None:
        return _Found(method, policy, None, None, ("it was not validated",))
    certificate = Certificate.from_json(best.body_json)
    return _Found(method, policy, certificate, best.registered_at, tuple(certificate.shortcomings(policy, minimum)))


def _refusal(period: str, item: _Found, model: str) -> str:
    index = f"the index {item.method.index_fingerprint[:16]} of {model}"
    reason = f'credit close {period} --unvalidated "REASON", which every statement will show'
    if item.certificate is None:
        return f"{period} was computed with {index}, and it was not validated; credit validate INDEX DATA, or {reason}"
    return (
        f"{period} was computed with {index}, whose certificate {item.certificate.sha256[:16]} is not enough:"
        f" {'; '.join(item.faults)}. Improve the index or validate it with more retrainings (credit validate),"
        f" demand less (--min-fidelity), or {reason}"
    )


def _check(item: _Found) -> ValidationCheck:
    index, policy, made = item.method.index_fingerprint, item.policy.fingerprint, item.certificate
    if made is None or item.registered_at is None:
        return ValidationCheck(index, policy)
    score = made.score(item.policy)
    return ValidationCheck(
        index,
        policy,
        certificate=made.sha256,
        checked_on=item.registered_at.date().isoformat(),
        recipe=made.recipe,
        data=made.data,
        measure=score.method if score is not None else "",
        agreement=_text(score.lds if score is not None else None),
        ceiling=_text(made.ceiling),
        token_share=_text(made.baseline(TOKEN_SHARE).lds),
        bm25=_text(made.baseline(BM25).lds),
    )


def _words(item: _Found) -> list[str]:
    """Return sentences for a provider: the check, its result, and the limits of its meaning."""
    made = item.certificate
    score = None if made is None else made.score(item.policy)
    if made is None or item.registered_at is None:
        return [_NOTHING]
    day = item.registered_at.date().isoformat()
    if made.kind == "quick":
        return [_QUICK.format(day=day)]
    if score is None or score.lds is None or made.ceiling is None:
        return [_OTHER_SETTINGS.format(day=day)]
    return _retrained_words(made, score, score.lds, made.ceiling, day)


def _retrained_words(made: Certificate, score: MethodScore, lds: Estimate, ceiling: Estimate, day: str) -> list[str]:
    simple = {"counting words": made.baseline(TOKEN_SHARE).lds, "searching for the same words": made.baseline(BM25).lds}
    beside = [f"{name} alone reaches {value.value:.2f}" for name, value in simple.items() if value is not None]
    checked = (
        f"Checked on {day}: {made.retrainings} models were trained: on all data, without one provider at a time, and on"
        f" random halves of the {len(made.providers)} providers. {made.outputs} answers were measured under each."
    )
    agreed = (
        f"The numbers behind the credits put these models in the right order with an agreement of {lds.value:.2f}"
        f" (90 % interval {lds.low:.2f} to {lds.high:.2f}); 1 is always right, and 0 is chance. Training the same model"
        f" twice gives different results, so that nothing could reach more than {ceiling.value:.2f};"
        f" {', '.join(beside)}."
    )
    meant = (
        f"For {score.top_one.value:.0%} of the answers, the provider with the highest number is the one whose absence"
        " costs most. This is about all providers and answers together: it does not say how right the amount of any"
        " single provider is, and it holds for this model and such answers only."
    )
    said = [COUNTERFACTUALS[made.counterfactual]] if made.counterfactual else []
    return [checked, *said, agreed, meant]


def _text(value: Estimate | None) -> str:
    return "" if value is None else f"{value.value:.2f}"


def share_certainties(conn: Connection, books: Path, period: str) -> dict[str, Certainty]:
    """Return the certainty of every credited provider's share, from the score books of a period.

    A single output says nothing of others of its kind: then nobody's share has an interval.

    Raises:
        IntegrityError: a score book is missing or changed, or differs from the ledger.
    """
    error = period_attribution_error(conn, period)
    bootstrap = ShareBootstrap(["provider"], error or 0.0)
    for book, rows in standing_scores(conn, books, period):
        bootstrap.add(rows, Policy.from_json(book.policy_json))
    if bootstrap.outputs < 2:
        return {}
    house = {item.key for item in providers(conn) if item.kind == "house"}
    alike = bootstrap.alike()
    return {
        key: Certainty(
            bootstrap.outputs,
            low,
            high,
            alike=sum(1 for (other,) in alike[key,] if other not in house),
            covers_attribution=error is not None,
        )
        for (key,), (low, high) in bootstrap.intervals().items()
    }
