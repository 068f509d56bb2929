"""kronfluence: EK-FAC factors of the unprojected layers; scores by a pass over the training data, nothing stored."""

# ruff: noqa: D102  # what the methods do is said once, by `task.System`
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task as KronfluenceTask
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.measure import Clock, next_token_loss
from benchmarks.rivals.task import Task, watched_layers, with_linears


class _Sequences(Dataset[Tensor]):
    def __init__(self, tokens: NDArray[Any]) -> None:
        self.tokens = torch.from_numpy(tokens.astype("int64"))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> Tensor:
        return self.tokens[index]


class _NextToken(KronfluenceTask):
    """The loss of all systems; kronfluence wants labels sampled from the model unless the Fisher is empirical."""

    def __init__(self, modules: list[str]) -> None:
        self.modules = modules

    def compute_train_loss(self, batch: Tensor, model: nn.Module, sample: bool = False) -> Tensor:
        assert not sample
        return next_token_loss(model, batch)

    def compute_measurement(self, batch: Tensor, model: nn.Module) -> Tensor:
        return next_token_loss(model, batch)

    def get_influence_tracked_modules(self) -> list[str]:
        return self.modules


class Kronfluence:
    """Identity strategy (inner products) or EK-FAC; always at full rank."""

    def __init__(self, task: Task) -> None:
        if task.rank is not None:
            raise ValueError("kronfluence does not project")
        self.task = task
        model = with_linears(task.load())
        work = _NextToken(list(watched_layers(model)))
        self.model = prepare_model(model, work)
        self.work = work
        self.analyzer: Analyzer | None = None
        self.round = 0

    def build(self, folder: Path) -> Clock:
        self.analyzer = Analyzer(
            "bench", self.model, self.work, cpu=True, output_dir=str(folder), disable_tqdm=True, disable_model_save=True
        )
        strategy = "ekfac" if self.task.curvature == "ekfac" else "identity"
        self.analyzer.fit_all_factors(
            "factors", _Sequences(self.task.train), per_device_batch_size=self.task.batch, overwrite_output_dir=True,
            factor_args=FactorArguments(strategy=strategy, use_empirical_fisher=True),
        )  # fmt: skip
        return Clock()

    def open(self, folder: Path) -> None:
        """It opens its factors when it scores."""

    def value(self) -> NDArray[Any]:
        assert self.analyzer is not None
        self.round += 1
        self.analyzer.compute_pairwise_scores(
            f"scores-{self.round}", "factors", _Sequences(self.task.outputs), _Sequences(self.task.train),
            per_device_query_batch_size=len(self.task.outputs), per_device_train_batch_size=self.task.batch,
            score_args=ScoreArguments(damping_factor=None), overwrite_output_dir=True,
        )  # fmt: skip
        found = self.analyzer.load_pairwise_scores(f"scores-{self.round}")
        return found["all_modules"].numpy()

    def notes(self) -> str:
        return "full rank; Conv1D layers replaced by nn.Linear; every valuation goes through the training data again"
