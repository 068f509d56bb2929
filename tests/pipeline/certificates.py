"""Certificates and reviews with given numbers, without any retraining."""

from __future__ import annotations

from datetime import datetime

from credit.accounting.credits import Policy
from credit.fidelity.certificate import BM25, CALIBRATED, PLAIN, TOKEN_SHARE, Certificate, CertificateKind, MethodScore
from credit.fidelity.metrics import Estimate
from credit.fidelity.reviews import (
    IndexReview,
    LearnedText,
    MembershipFindings,
    MembershipReview,
    MembershipSettings,
    OverlapFindings,
    OverlapReview,
    OverlapSettings,
    SharedText,
)
from credit.ledger.database import Ledger
from credit.ledger.indexes import register_certificate, register_review
from tests.pipeline.books_of_account import NOW
from tests.pipeline.scored import INDEX

CALIBRATED_POLICY = Policy(alpha=0.5, beta=2.0, gamma=0.25)


def certificate(
    effect: float = 0.8,
    *,
    kind: CertificateKind = "retraining",
    tokens: float = 0.3,
    bm25: float = 0.5,
    calibrated: float = 0.85,
    ceiling: float = 0.9,
    index: str = INDEX,
    recipe: str = "r",
    attribution_error: float | None = 0.0,
) -> Certificate:
    """A certificate in which measures reach the given LDS."""

    others = {TOKEN_SHARE: tokens, BM25: bm25}

    def score(method: str, lds: float, policy: Policy | None = None) -> MethodScore:
        half = None if kind == "quick" else _about(lds)
        numbers = (half, half, _about(0.71), _about(0.72), _about(0.73), _about(0.05))
        leads = (
            {} if kind == "quick" else {name: _about(lds - value) for name, value in others.items() if name != method}
        )
        judged = policy.of_one_output.fingerprint if policy else ""
        return MethodScore(method, *numbers, judged, attribution_error, leads)

    return Certificate(
        kind=kind,
        index=index,
        data="d" * 64,
        recipe=recipe,
        outputs=60,
        providers=("ann", "ben", "own"),
        retrainings=0 if kind == "quick" else 21,
        ceiling=None if kind == "quick" else _about(ceiling),
        methods=(
            score(CALIBRATED, calibrated, CALIBRATED_POLICY),
            score(PLAIN, effect, Policy()),
            score(TOKEN_SHARE, tokens),
            score(BM25, bm25),
        ),
        calibration=None,
    )


def register(ledger: Ledger, made: Certificate, now: datetime = NOW) -> str:
    """Put a certificate into a ledger that knows its index; return its hash."""
    with ledger.write() as conn:
        return register_certificate(conn, made.index, made.kind, made.canonical, now=now).sha256


def overlap_review(copies: int = 2, index: str = INDEX) -> OverlapReview:
    """A review of 120 records of three providers."""
    findings = OverlapFindings(3, 120, copies, 1 if copies else 0, 0, 1, (SharedText("ben", "ann", 0.125),))
    return OverlapReview(index, "d" * 64, OverlapSettings(0.8, 24, 256, 0.25, 1.0), findings)


def membership_review(doubted: int = 0, index: str = INDEX) -> MembershipReview:
    """A review of three providers."""
    findings = MembershipFindings(3, doubted, (LearnedText("ben", 0.4, 0.3, 0.5),))
    return MembershipReview(index, "d" * 64, MembershipSettings("e" * 64, None, 50_000, 0.7), findings)


def record(ledger: Ledger, *made: IndexReview, now: datetime = NOW) -> None:
    """Put reviews into a ledger that knows their index."""
    with ledger.write() as conn:
        for item in made:
            register_review(conn, item.index, item.kind, item.canonical, now=now)


def _about(value: float) -> Estimate:
    return Estimate(value, value - 0.05, value + 0.05)
