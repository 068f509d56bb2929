"""Retraining: a recipe trains a model on some providers' data, and the log-likelihood of the outputs is measured."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM

from credit import __version__
from credit.errors import InvalidRequestError, ValuationError
from credit.fidelity.counterfactuals import Counterfactual
from credit.fidelity.workers import map_in_processes
from credit.records import PPM, LoggedOutput, TrainingRecord
from credit.storage import canonical_json, only_one, write_whole
from credit.valuation.batches import make_batch, plan_batches
from credit.valuation.language_model import LanguageModel, load_model, without_progress_bars
from credit.valuation.losses import sequence_losses

Trainer = Callable[[Sequence[TrainingRecord], int, Path], None]
"""Trains on records with a seed and saves model and tokenizer in a folder, in Hugging Face layout."""

_MEASURE_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Recipe:
    """The built-in recipe: plain causal language modelling with AdamW, for models that train in minutes.

    Attributes:
        start: folder of the model whose configuration and tokenizer are used.
        scratch: whether weights are drawn anew; else training starts from those of `start`.
        epochs: passes over the data; ignored where `steps` is given.
        steps: optimiser steps whatever the size of the data.
        learning_rate: highest rate of a one-cycle schedule.
        batch_tokens: padded tokens in a batch, at most.
        max_length: tokens of a sequence.
    """

    start: Path
    scratch: bool = True
    epochs: float = 3.0
    steps: int | None = None
    learning_rate: float = 3e-3
    batch_tokens: int = 2048
    max_length: int = 128

    def train(self, records: Sequence[TrainingRecord], seed: int, out: Path, *, until: float = 1.0) -> None:
        """Train a model on records and save it.

        `until`, a fraction of the steps above 0, stops there: what is saved is the checkpoint that the whole run had.
        """
        torch.manual_seed(seed)
        model = load_model(self.start, dtype="fp32")
        module: Any = model.module
        if self.scratch:
            anew: Any = AutoModelForCausalLM  # untyped in transformers
            module = anew.from_config(AutoConfig.from_pretrained(str(self.start))).to(model.device)
        encoder = model.encoder(self.max_length)
        examples = [example for record in records for example in encoder.training(record)]
        generator = torch.Generator().manual_seed(seed)
        lengths = [len(example.tokens) for example in examples]
        order = _shuffled(lengths, self.batch_tokens, generator)
        total = self.steps or max(1, math.ceil(self.epochs * len(order)))
        optimizer = torch.optim.AdamW(module.parameters(), lr=self.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
        rising = max(0.1, min(0.75, 1.5 / total))  # of the schedule: a step at least, or it cannot be computed
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=total, pct_start=rising
        )
        module.train()
        for _ in range(max(1, round(until * total))):
            if not order:
                order = _shuffled(lengths, self.batch_tokens, generator)
            batch = make_batch([examples[i] for i in order.pop()]).to(model.device)
            logits = module(input_ids=batch.input_ids, use_cache=False).logits
            predicted = int((batch.labels[:, 1:] >= 0).sum())
            loss = sequence_losses(logits, batch.labels).sum() / predicted
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        with without_progress_bars():
            module.save_pretrained(out)
        model.tokenizer.save_pretrained(out)

    def fingerprint(self, model_sha256: str) -> str:
        """Identity of the recipe: its settings, the model it starts from, and the software."""
        return recipe_fingerprint(asdict(self) | {"start": model_sha256})


def recipe_fingerprint(settings: Mapping[str, Any]) -> str:
    """Identity of a recipe: everything but data and seed that decides what model comes out."""
    software = {"credit": __version__, "torch": torch.__version__, "transformers": transformers.__version__}
    return hashlib.sha256(canonical_json({**settings, "software": software}).encode()).hexdigest()


def _shuffled(lengths: Sequence[int], budget: int, generator: torch.Generator) -> list[list[int]]:
    """Batches of at most `budget` padded tokens, filled in a random order: no batch is of one provider or length."""
    batches: list[list[int]] = []
    longest = 0
    for position in torch.randperm(len(lengths), generator=generator).tolist():
        longest = max(longest, lengths[position])
        if not batches or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
            longest = lengths[position]
        batches[-1].append(position)
    return batches


def drawn_owner(record: TrainingRecord) -> str:
    """Return the provider with whom a record is in a retraining, or out of it.

    Nobody can train on three tenths of a record. One that several providers share goes to one of them by lot, each with
    the chance of its share, and to the same in every retraining: then the data of all is divided without a rest, and
    what is to be expected without a provider is, to first order, what its shares say.
    """
    lot = int.from_bytes(hashlib.sha256(record.id.encode()).digest()[8:16], "big") % PPM  # other bits than a fold's
    for share in record.shares:
        lot -= share.ppm
        if lot < 0:
            break
    return share.group.provider


def load_trainer(name: str) -> Trainer:
    """Return the user's own recipe, named `module:function`.

    Raises:
        InvalidRequestError: it cannot be imported or called.
    """
    module, _, function = name.partition(":")
    try:
        trainer: Trainer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidRequestError(f"the trainer {name!r} cannot be loaded ({error}); give module:function") from error
    if not callable(trainer):
        raise InvalidRequestError(f"the trainer {name!r} is not a function of (records, seed, folder)")
    return trainer


def trainer_fingerprint(name: str, trainer: Trainer) -> str:
    """Identity of the user's own recipe: its name and the source of its module; what that imports is not seen."""
    source = inspect.getsourcefile(inspect.unwrap(trainer))
    content = Path(source).read_bytes() if source else b""
    return recipe_fingerprint({"trainer": name, "source": hashlib.sha256(content).hexdigest()})


def log_likelihoods(model: LanguageModel, outputs: Sequence[LoggedOutput], max_length: int) -> NDArray[np.float64]:
    """Log-likelihood of each output's completion given its prompt, in nats: (Q,)."""
    encoder = model.encoder(max_length)
    examples, owners = [], []
    for number, output in enumerate(outputs):
        for example in encoder.output(output):
            examples.append(example)
            owners.append(number)
    result = np.zeros(len(outputs))
    model.module.eval()
    for positions in plan_batches([len(example.tokens) for example in examples], _MEASURE_TOKENS):
        batch = make_batch([examples[p] for p in positions]).to(model.device)
        with torch.no_grad():
            losses = model.losses(batch).double().cpu().numpy()
        np.subtract.at(result, [owners[p] for p in positions], losses)
    if not np.isfinite(result).all():
        raise ValuationError(f"a log-likelihood under {model.path} is not finite; the recipe diverged")
    return result


class Laboratory:
    """Runs retrainings, once each: results are kept in `folder` under the hash of everything that decides them."""

    def __init__(
        self,
        folder: Path,
        records: Sequence[TrainingRecord],
        outputs: Sequence[LoggedOutput],
        trainer: Trainer,
        recipe: str,
        max_length: int,
    ) -> None:
        self.folder, self.records, self.outputs, self.trainer = folder, records, outputs, trainer
        self._max_length = max_length
        self._inputs = [recipe, max_length, _digest(records), _digest(outputs)]
        folder.mkdir(parents=True, exist_ok=True)

    def outcome(self, run: Counterfactual) -> NDArray[np.float64]:
        """Log-likelihoods of the outputs (Q,) after a retraining, which is made if it was not made before."""
        path = self._path(run)
        if path.is_file():
            return np.asarray(json.loads(path.read_text())["log_likelihood"])
        model = path.with_suffix(".model")
        shutil.rmtree(model, ignore_errors=True)
        self.trainer([record for record in self.records if drawn_owner(record) in run.providers], run.seed, model)
        values = log_likelihoods(load_model(model, dtype="fp32"), self.outputs, self._max_length)
        body = {"providers": sorted(run.providers), "seed": run.seed, "log_likelihood": values.tolist()}
        write_whole(path, json.dumps(body).encode())
        shutil.rmtree(model)
        return values

    def outcomes(
        self,
        runs: Sequence[Counterfactual],
        *,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[Counterfactual, NDArray[np.float64]]:
        """Log-likelihoods of the outputs (Q,) after each of many retrainings, so many at a time.

        Killed at any moment and called again, it goes on: what was finished is kept, and is not trained again.

        Raises:
            LockHeldError: another validation is at work in the same folder.
        """
        held = f"another validation is at work in {self.folder}; wait for it to end"
        with only_one(self.folder / ".lock", held):
            # Halves and their complements come in pairs: the same retraining may be asked for twice.
            missing = list({self._path(run): run for run in runs if not self._path(run).is_file()}.values())
            done = len(runs) - len(missing)
            if progress:
                progress(done, len(runs))
            made = map_in_processes(self.outcome, missing, workers) if workers > 1 else map(self.outcome, missing)
            for number, _ in enumerate(made, start=done + 1):
                if progress:
                    progress(number, len(runs))
            return {run: self.outcome(run) for run in runs}

    def _path(self, run: Counterfactual) -> Path:
        key = hashlib.sha256(canonical_json([*self._inputs, sorted(run.providers), run.seed]).encode()).hexdigest()
        return self.folder / f"{key[:32]}.json"


def _digest(records: Sequence[TrainingRecord] | Sequence[LoggedOutput]) -> str:
    hasher = hashlib.sha256()
    for record in records:
        # Without the splits of records that have none: such data keeps the hash that it had before there were any.
        content = {name: value for name, value in asdict(record).items() if name != "splits" or value}
        hasher.update(json.dumps(content, sort_keys=True, default=str).encode())
    return hasher.hexdigest()
