"""What a validation found, tied by fingerprints to what was validated: read, judged and told without a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from credit.accounting.credits import Policy
from credit.errors import IntegrityError
from credit.fidelity.metrics import Estimate
from credit.storage import canonical_json

CERTIFICATE = "certificate.json"
QUICK_CERTIFICATE = "certificate-quick.json"
"""Names of the certificates in the folder of an index: by retraining, and by a step (which replaces no other)."""

PLAIN, CALIBRATED = "effect", "effect, calibrated"
TOKEN_SHARE, BM25 = "token share", "BM25"
TO_BEAT = (TOKEN_SHARE, BM25)
"""What a measure has to beat before anybody is paid by it: counting tokens, and searching for words."""

Kind = Literal["retraining", "quick"]


@dataclass(frozen=True, slots=True)
class MethodScore:
    """How well one measure predicts what happens. Correlations are means over outputs; higher is better but for error.

    Attributes:
        method: what the measure is called.
        lds: rank correlation over random halves of the providers; None where none were retrained.
        lds_given_size: the same with the tokens of each half partialled out.
        pearson: correlation over providers with the fall in nats when each is left out.
        spearman: the same by ranks.
        top_one: share of outputs whose leading provider is the one whose absence costs most.
        share_error: total variation distance of the shares of all credits, 0 to 1.
        policy: fingerprint of the policy of credits that pays by this measure; empty where none does.
        attribution_error: see `credit.fidelity.metrics.attribution_error`; None where it was not measured.
        leads: by how much its LDS exceeds that of each measure `TO_BEAT`, output by output; empty without halves.
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
    """Weights of effect that turn it into nats: what outputs lost without each provider, by least squares.

    `ratio` is the measured fall over the predicted one, summed over outputs and providers with a positive prediction,
    each provider predicted by weights that were fitted on others: 1 is right, and 0 means that nothing was predicted.
    """

    alpha: float
    beta: float
    gamma: float
    fitted_on: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Control:
    """A provider whose text the model was never trained on: the share of all credits that it got all the same."""

    provider: str
    share: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """The result of a validation, tied by fingerprints to what was validated.

    Attributes:
        kind: by `retraining`, or `quick`: by a small step of the optimiser, which needs no retraining.
        index: fingerprint of the index.
        data: SHA-256 of its training data.
        recipe: fingerprint of how models were retrained, or of how the step was taken.
        outputs: logged outputs that were compared.
        providers: whose data was left out in turn.
        retrainings: models that were trained.
        ceiling: the LDS that no prediction can exceed, given the noise of retraining; None without halves.
        methods: the index's measures, and simpler ones beside them.
        calibration: of effect; None in a quick one.
        controls: see `Control`.
    """

    kind: Kind
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

    @property
    def calibration_helps(self) -> bool:
        """Whether calibrated effect predicts better than plain effect, on providers that it was not fitted on.

        A fit can put all weight on volume, which then pays everybody alike: what does not help must not be paid by.
        """
        scores = {score.method: score for score in self.methods}
        if self.calibration is None:
            return False
        fitted, plain = scores[CALIBRATED], scores[PLAIN]
        return fitted.pearson.value >= plain.pearson.value and fitted.share_error.value <= plain.share_error.value

    @property
    def canonical(self) -> str:
        """The certificate as one line of JSON with sorted keys: what its hash is taken of."""
        return canonical_json(self._body())

    @property
    def sha256(self) -> str:
        """Hash of the canonical text, as hexadecimal."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    def to_json(self) -> str:
        """Render for a file: indented, with its own `sha256`, which covers all the rest."""
        return json.dumps(self._body() | {"sha256": self.sha256}, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """Read what `canonical` or `to_json` gave.

        Raises:
            IntegrityError: it is none, or was changed after it was written.
        """
        try:
            body = json.loads(text)
            claimed = body.pop("sha256", None)
            found = _parse(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"this is no certificate of this version of credit ({error})") from error
        if claimed not in {None, found.sha256}:
            raise IntegrityError("this certificate was changed after it was written")
        return found

    def score(self, policy: Policy) -> MethodScore | None:
        """Return the score of the measure that a policy pays by; None where it was not validated."""
        wanted = policy.of_one_output.fingerprint
        return next((score for score in self.methods if score.policy == wanted), None)

    def baseline(self, method: str) -> MethodScore:
        """Return the score of a measure that has to be beaten."""
        return next(score for score in self.methods if score.method == method)

    def _body(self) -> dict[str, Any]:
        """Everything, less what older certificates do not have either: their hashes stay what they were."""
        body = asdict(self)
        for item in body["methods"]:
            for name in ("attribution_error", "leads"):
                if not item[name] and item[name] != 0:
                    del item[name]
        return body

    def shortcomings(self, policy: Policy, minimum: float) -> Iterator[str]:
        """Yield, in words, why nobody should be paid by a policy on this certificate; nothing where they may be.

        Args:
            policy: what credits were computed by.
            minimum: LDS that is demanded, as a fraction of the noise ceiling.
        """
        if self.kind == "quick":
            yield "it is a quick certificate, which no retraining stands behind"
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


def read_certificate(folder: Path, fingerprint: str, kind: Kind = "retraining") -> Certificate | None:
    """Read the certificate in the folder of an index, if it has one that is about this very index.

    Raises:
        IntegrityError: the certificate was changed after it was written.
    """
    path = certificate_path(folder, kind)
    if not path.is_file():
        return None
    try:
        found = Certificate.from_json(path.read_text(encoding="utf-8"))
    except (IntegrityError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path}: {error}; validate the index again") from error
    return found if found.index == fingerprint else None


def certificate_path(folder: Path, kind: Kind) -> Path:
    """Where a certificate lies in the folder of its index."""
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
