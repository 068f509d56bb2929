"""Which of the certificates in the ledger counts for what credits were computed with."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from credit.accounting.credits import Policy
from credit.fidelity.certificate import Certificate
from credit.ledger.certificates import RegisteredCertificate, certificates
from credit.ledger.credits import CreditMethod, credit_methods


def counting(registered: Sequence[RegisteredCertificate], method: CreditMethod) -> RegisteredCertificate | None:
    """Return the last certificate by retraining of a method's index, or the last quick one where there is none."""
    own = [item for item in registered if item.index_fingerprint == method.index_fingerprint]
    return max(own, key=lambda item: (item.kind == "retraining", item.id), default=None)


def period_attribution_error(conn: Connection, period: str) -> float | None:
    """Return the error of a period's shares that validation found, the largest where several methods were used.

    None where some credits of the period were computed by what no retraining has checked, or follow sums over the
    period: what validations find is about outputs that pay alone. See `credit.fidelity.metrics.attribution_error`.

    Raises:
        IntegrityError: a certificate is not what was registered.
    """
    registered = certificates(conn)
    errors = []
    for method in credit_methods(conn, period):
        found, policy = counting(registered, method), Policy.from_json(method.policy_json)
        if found is None or found.kind != "retraining" or policy.needs_period:
            return None
        score = Certificate.from_json(found.body_json).score(policy)
        if score is None or score.attribution_error is None:
            return None
        errors.append(score.attribution_error)
    return max(errors, default=None)
