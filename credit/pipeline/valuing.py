"""Valuing of outputs, as a job for the workers of an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from credit.accounting.credits import Policy
from credit.errors import MismatchError, ValuationError
from credit.ledger.indexes import RegisteredIndex
from credit.pipeline.index import open_registered
from credit.records import LoggedOutput
from credit.valuation import AttributionIndex, LanguageModel, Valuation


@dataclass(frozen=True, slots=True)
class Valued:
    """Value of some outputs.

    Attributes:
        valuation: their value, without those of `non_finite`; None where there is an error.
        non_finite: positions of outputs with a non-finite gradient or influence.
        error: the reason for no value of these outputs together.
    """

    valuation: Valuation | None
    non_finite: tuple[int, ...] = ()
    error: ValuationError | None = None


@dataclass(frozen=True, slots=True)
class Valuing:
    """Job whose tasks are outputs to value together.

    Attributes:
        index: values them.
        policy: damping, echo, noise floor, and whether thoughts are paid.
        models: new places of the index's models, if moved.
        dtype: number format of the models, or `auto`.
        device: `cpu`, `cuda`, ... or `auto`.
    """

    index: RegisteredIndex
    policy: Policy
    models: tuple[Path, ...] = ()
    dtype: str = "auto"
    device: str = "auto"

    def open(self) -> Callable[[Sequence[LoggedOutput]], Valued]:
        """Open the index and load its models.

        Raises:
            LedgerError: the index is gone.
            ValuationError: a model is gone, or another one.
        """
        index = open_registered(self.index, damping=self.policy.damping)
        model = index.load_model(*self.models, dtype=self.dtype, device=self.device)
        return lambda outputs: self._value(index, model, outputs)

    def _value(self, index: AttributionIndex, model: LanguageModel, outputs: Sequence[LoggedOutput]) -> Valued:
        policy, non_finite = self.policy, list[int]()
        paid = [as_paid(output, policy) for output in outputs]
        try:
            valuation = index.value(
                model, paid, echo=policy.echo, noise_floor=policy.noise_floor, non_finite=non_finite
            )
        except MismatchError:
            raise
        except ValuationError as error:
            return Valued(None, error=error)
        return Valued(valuation, tuple(non_finite))


def as_paid(output: LoggedOutput, policy: Policy) -> LoggedOutput:
    """Return an output with the completion that a policy pays for."""
    return output.with_thoughts_in_completion if policy.thoughts == "paid" else output
