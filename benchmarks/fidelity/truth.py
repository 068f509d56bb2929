"""Truth of a case: its retrainings without each provider, made once and kept."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fidelity.cases import Case
from credit.engines import EngineChoice
from credit.fidelity.metrics import Floats
from credit.fidelity.retraining import Counterfactual, Laboratory, plan
from credit.valuation import LanguageModel, load_model

MAX_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Truth:
    """Retrainings of a case: the log-likelihoods of its outputs (Q,), nats, after each; and the models to be valued."""

    case: Case
    providers: list[str]
    outcomes: dict[Counterfactual, Floats]
    folder: Path

    def model(self, seed: int = 0, until: float = 1.0) -> LanguageModel:
        """Return the model trained on all data with a seed, or its checkpoint after a fraction of the steps."""
        folder = self.folder / (f"trained-{seed}" if until == 1.0 else f"trained-{seed}-until-{until:g}")
        if not (folder / "tokenizer.json").is_file():  # written last
            self.case.recipe.train(self.case.records, seed, folder, until=until)
        return load_model(folder, dtype="fp32")


def retrain(case: Case, work: Path, workers: int = 1) -> Truth:
    """Return a case with its retrainings; make the missing ones."""
    recipe = case.recipe.fingerprint(load_model(case.recipe.start).model_sha256)
    laboratory = Laboratory(work / "runs", case.records, case.outputs, case.recipe.train, recipe, MAX_LENGTH)
    providers = sorted({record.group.provider for record in case.records})
    outcomes = laboratory.outcomes(
        plan(providers, halves=case.size.halves, seeds=case.size.seeds),
        engine=EngineChoice(workers=workers).engine(),
        progress=lambda done, total: print(f"\r{case.name}: retrainings {done}/{total}", end="", file=sys.stderr),
    )
    print(file=sys.stderr)
    return Truth(case, providers, outcomes, work)
