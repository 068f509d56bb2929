"""Certificates: results of a validation, tied by fingerprints to an index and its data. To read them takes no model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection

from credit.accounting.credits import CounterfactualKind, Policy
from credit.errors import IntegrityError
from credit.fidelity.metrics import Estimate
from credit.ledger.credits import CreditMethod, credit_methods
from credit.ledger.indexes import RegisteredCertificate, certificates
from credit.storage import canonical_json, parse_object

CERTIFICATE = "certificate.json"
QUICK_CERTIFICATE = "certificate-quick.json"
"""Files in the folder of an index: the certificate by retraining, and the quick one, which never replaces it."""

PLAIN, CALIBRATED = "effect", "effect, calibrated"
TOKEN_SHARE, BM25 = "token share", "BM25"
TO_BEAT = (TOKEN_SHARE, BM25)
"""Baselines that a measure has to beat before anybody is paid by it: counting tokens, and searching for words."""

CertificateKind = Literal["retraining", "quick"]

COUNTERFACTUALS: dict[CounterfactualKind, str] = {
    "removed": "The comparison is with a model that learned from less data, for fewer steps; nothing took its place.",
    "replaced": "The comparison is with a model that learned as long, from more of the other providers' data.",
}
"""What a provider is told of each counterfactual."""

_OF_ANOTHER: dict[CounterfactualKind, str] = {
    "removed": "its models were trained as long without the data (replaced); credits are about fewer steps (removed)",
    "replaced": "it shows no models that were trained as long without the data, and credits are about them (replaced)",
}
"""The reason why a certificate says nothing of credits by each counterfactual."""


@dataclass(frozen=True, slots=True)
class MethodScore:
    """Scores of one measure as a prediction of retraining. Correlations are means over outputs; errors are best low.

    Attributes:
        method: name of the measure.
        lds: rank correlation over random halves of the providers; None where none were retrained.
        lds_given_size: the same, with the tokens of each half partialled out.
        pearson: correlation over providers with the fall in nats when each is left out.
        spearman: the same by ranks.
        top_one: fraction of outputs that lose most without the provider predicted first.
        share_error: total variation distance of the shares of all credits, 0 to 1.
        policy: fingerprint of the policy that pays by this measure; empty: none does.
        attribution_error: see `credit.fidelity.metrics.attribution_error`; None: not measured.
        leads: LDS beyond that of each measure `TO_BEAT`, output by output; empty without halves.
    """

    method: str
    lds: Estimate | None
    lds_given_size: Estimate | None
    pearson: Estimate
    spearman: Estimate
    top_one: Estimate
    share_error: Estimate
    policy: str = ""
    attribution_error: float | None = None
    leads: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights that turn effect into nats, by least squares on the losses of outputs without each provider.

    `ratio` is the measured fall over the predicted one, summed over outputs and providers with a positive prediction.
    Each provider is predicted by weights fitted on others. 1 is right; 0: nothing was predicted.
    """

    alpha: float
    beta: float
    gamma: float
    fitted_on: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Control:
    """A provider outside the training data, and the share of all credits that it got all the same."""

    provider: str
    share: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """Result of a validation.

    Attributes:
        kind: by `retraining`, or `quick` by one small step of the optimiser.
        index: fingerprint of the index.
        data: SHA-256 of its training data.
        recipe: fingerprint of the recipe of retraining, or of the step.
        outputs: number of logged outputs.
        providers: each left out in turn.
        retrainings: number of trained models.
        ceiling: highest LDS of any prediction, given the noise of retraining; None without halves.
        methods: the index's measures, and simpler ones beside them.
        calibration: of effect; None in a quick one.
        controls: see `Control`.
        counterfactual: of the retrainings; empty: the certificate does not say, as older ones.
    """

    kind: CertificateKind
    index: str
    data: str
    recipe: str
    outputs: int
    providers: tuple[str, ...]
    retrainings: int
    ceiling: Estimate | None
    methods: tuple[MethodScore, ...]
    calibration: Calibration | None
    controls: tuple[Control, ...] = ()
    counterfactual: CounterfactualKind | Literal[""] = ""

    def is_about(self, policy: Policy) -> bool:
        """True if retraining made the counterfactual of a policy; a certificate that does not say is for `removed`."""
        return (self.counterfactual or "removed") == policy.counterfactual

    @property
    def calibration_helps(self) -> bool:
        """True if calibrated effect predicts better than plain effect, on providers outside its fit.

        A fit can put all weight on volume and pay everybody alike. Such a fit must not pay.
        """
        scores = {score.method: score for score in self.methods}
        if self.calibration is None:
            return False
        fitted, plain = scores[CALIBRATED], scores[PLAIN]
        return fitted.pearson.value >= plain.pearson.value and fitted.share_error.value <= plain.share_error.value

    @property
    def canonical(self) -> str:
        """The certificate as one line of JSON with sorted keys: the text behind its SHA-256."""
        return canonical_json(self._body())

    @property
    def sha256(self) -> str:
        """Hash of the canonical text, as hexadecimal."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """Return the text of its file: indented, with its own `sha256` over all the rest."""
        return json.dumps(self._body() | {"sha256": self.sha256}, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """Return the certificate in a text of `canonical` or `to_json`.

        Raises:
            IntegrityError: the text is no certificate, or somebody changed it.
        """
        try:
            body = parse_object(text)
            claimed = body.pop("sha256", None)
            found = _parse(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"this is no certificate of this version of credit ({error})") from error
        if claimed not in {None, found.sha256}:
            raise IntegrityError("this certificate was changed after it was written")
        return found

    def score(self, policy: Policy) -> MethodScore | None:
        """Return the score of the measure of a policy; None: not validated."""
        wanted = policy.of_one_output.fingerprint
        return next((score for score in self.methods if score.policy == wanted), None)

    def baseline(self, method: str) -> MethodScore:
        """Return the score of a baseline."""
        return next(score for score in self.methods if score.method == method)

    def _body(self) -> dict[str, Any]:
        """Return all fields as JSON values, without empty ones that older certificates lack: their hashes stay."""
        body = asdict(self)
        if not self.counterfactual:
            del body["counterfactual"]
        for item in body["methods"]:
            for name in ("attribution_error", "leads"):
                if not item[name] and item[name] != 0:
                    del item[name]
        return body

    def shortcomings(self, policy: Policy, minimum: float) -> Iterator[str]:
        """Yield the reasons, in words, against paying by a policy on this certificate; none: it may pay.

        Args:
            policy: policy of the credits.
            minimum: demanded LDS as a fraction of the noise ceiling.
        """
        if self.kind == "quick":
            yield "it is a quick certificate, which no retraining stands behind"
            return
        if not self.is_about(policy):
            yield _OF_ANOTHER[policy.counterfactual]
            return
        score = self.score(policy)
        if score is None:
            yield "it is about other weights, noise floor or damping than credits were computed with"
            return
        if score.lds is None or self.ceiling is None:
            yield "no random halves of the providers were retrained"
            return
        if score.lds.value < minimum * self.ceiling.value:
            yield (
                f"{score.method} reaches an LDS of {score.lds.value:.2f}, which is"
                f" {_fraction(score.lds.value, self.ceiling.value):.2f} of the noise ceiling"
                f" {self.ceiling.value:.2f}; at least {minimum:.2f} of it is demanded"
            )
        for name in TO_BEAT:
            lead, lds = score.leads.get(name), self.baseline(name).lds
            if lead is None or lds is None:
                yield f"it does not say by how much {score.method} beats {name}; validate again, retrainings are kept"
            elif lead.low <= 0:
                yield (
                    f"{score.method} does not beat {name} beyond chance: its LDS is {score.lds.value:.2f}, that of"
                    f" {name} {lds.value:.2f}, and the 90 % interval of the difference is {lead.low:.2f} to"
                    f" {lead.high:.2f} on {self.outputs} outputs"
                )


def read_certificate(folder: Path, fingerprint: str, kind: CertificateKind = "retraining") -> Certificate | None:
    """Return the certificate in the folder of an index; None: there is none, or it is about another index.

    Raises:
        IntegrityError: somebody changed the certificate.
    """
    path = certificate_path(folder, kind)
    if not path.is_file():
        return None
    try:
        found = Certificate.from_json(path.read_text(encoding="utf-8"))
    except (IntegrityError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path}: {error}; validate the index again") from error
    return found if found.index == fingerprint else None


def certificate_path(folder: Path, kind: CertificateKind) -> Path:
    """Return the path of a certificate in the folder of its index."""
    return folder / (CERTIFICATE if kind == "retraining" else QUICK_CERTIFICATE)


def _fraction(value: float, ceiling: float) -> float:
    return value / ceiling if ceiling > 0 else 0.0


def _score(item: dict[str, Any]) -> MethodScore:
    leads = {name: Estimate(**value) for name, value in item.pop("leads", {}).items()}
    fields: dict[str, Any] = {
        name: Estimate(**value) if isinstance(value, dict) else value for name, value in item.items()
    }
    return MethodScore(**fields, leads=leads)


def _parse(body: dict[str, Any]) -> Certificate:
    fit = body["calibration"]
    changes = {
        "providers": tuple(body["providers"]),
        "ceiling": None if body["ceiling"] is None else Estimate(**body["ceiling"]),
        "methods": tuple(_score(item) for item in body["methods"]),
        "calibration": None if fit is None else Calibration(**fit),
        "controls": tuple(Control(**item) for item in body["controls"]),
    }
    return Certificate(**(body | changes))


def counting(registered: Sequence[RegisteredCertificate], method: CreditMethod) -> RegisteredCertificate | None:
    """Return the last certificate by retraining of a method's index, else the last quick one, else None."""
    own = [item for item in registered if item.index_fingerprint == method.index_fingerprint]
    return max(own, key=lambda item: (item.kind == "retraining", item.id), default=None)


def period_attribution_error(conn: Connection, period: str) -> float | None:
    """Return the validated error of a period's shares, the largest of several methods: see `metrics.attribution_error`.

    None: some credits of the period come from an index without retraining, or follow sums over the period, while
    validation is about outputs one by one.

    Raises:
        IntegrityError: a certificate differs from the registered one.
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
