"""Retraining: models trained on some providers' data, each once, and the log-likelihood of the outputs under them.

Each retraining is a task for a worker of an engine. Its result is kept in a folder, and not made again.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from credit.engines import Engine, InProcess, Slice
from credit.engines.slices import SLICE_LOCKS
from credit.errors import InvalidRequestError, MismatchError, ValuationError
from credit.fidelity.recipes import Trainer
from credit.records import PPM, LoggedOutput, TrainingRecord
from credit.storage import canonical_json, make_folder, nobody_has, only_one, parse_object, write_whole
from credit.valuation.batches import make_batch, plan_batches
from credit.valuation.language_model import LanguageModel, load_model

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all."""

_MEASURE_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """A retraining: the providers in its data, and its seed."""

    kind: Literal["full", "leave-out", "half"]
    providers: frozenset[str]
    seed: int

    def __str__(self) -> str:
        return f"the retraining on {', '.join(sorted(self.providers))} with seed {self.seed}"


def plan(providers: Sequence[str], *, halves: int, seeds: int, seed: int = 0) -> list[Counterfactual]:
    """Plan retrainings: the full data and each provider left out, `seeds` times each, and `halves` random halves.

    Halves are drawn in pairs of a set and its complement: every provider is in half of them. Each half is trained with
    two seeds, and the agreement of the two is the noise ceiling.

    Raises:
        InvalidRequestError: there are fewer than three providers, or nothing would be retrained.
    """
    names = sorted(set(providers))
    if len(names) < 3:
        raise InvalidRequestError(f"validation compares providers; {len(names)} are too few, at least 3 are needed")
    if seeds < 1 or halves < 0:
        raise InvalidRequestError("validation needs at least one seed, and no negative number of halves")
    everybody = frozenset(names)
    runs = [Counterfactual("full", everybody, s) for s in range(seeds)]
    runs += [Counterfactual("leave-out", everybody - {name}, s) for name in names for s in range(seeds)]
    key = hashlib.sha256(f"{seed}/{','.join(names)}".encode()).digest()
    rng = random.Random(int.from_bytes(key[:8], "big"))  # noqa: S311  # a reproducible draw, not a secret
    drawn: list[frozenset[str]] = []
    while len(drawn) < halves:
        half = frozenset(rng.sample(names, len(names) // 2))
        # A half drawn twice would only repeat a model that is trained already.
        if half not in drawn:
            drawn += [half, everybody - half]
        # Few providers have few different halves: end when most were drawn, instead of drawing for ever.
        elif len(drawn) >= 2 ** (len(names) - 1):
            break
    runs += [Counterfactual("half", half, s) for half in drawn[:halves] for s in range(2)]
    return runs


def drawn_owner(record: TrainingRecord) -> str:
    """Return the one provider that a record belongs to in retrainings.

    Nobody can train on three tenths of a record. A shared record therefore goes to one of its providers by lot, with
    the chance of its share, and to the same one in every retraining. The data of all is then divided without a rest,
    and the expected loss without a provider follows its shares to first order.
    """
    lot = int.from_bytes(hashlib.sha256(record.id.encode()).digest()[8:16], "big") % PPM  # other bits than a fold's
    for share in record.shares:
        lot -= share.ppm
        if lot < 0:
            break
    return share.group.provider


def log_likelihoods(model: LanguageModel, outputs: Sequence[LoggedOutput], max_length: int) -> NDArray[np.float64]:
    """Return the log-likelihood of each output's completion given its prompt, nats: (Q,)."""
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
        raise ValuationError(f"a log-likelihood under {model.path} is not finite; lower the learning rate")
    return result


class Laboratory:
    """Runs each retraining once. `folder` keeps the results under the hash of everything that decides them."""

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
        make_folder(folder)

    def open(self) -> Callable[[Counterfactual], NDArray[np.float64]]:
        """Return the function that retrains: a laboratory is the job of a worker."""
        make_folder(self.folder)  # of a worker's own machine, where it is on no disk in common
        return self.outcome

    def outcome(self, run: Counterfactual) -> NDArray[np.float64]:
        """Return the log-likelihoods of the outputs (Q,) after a retraining, and retrain if there is no result yet."""
        path = self._path(run)
        if path.is_file():
            return _read_result(path, len(self.outputs))
        model = path.with_suffix(".model")
        # A killed training left it half written.
        shutil.rmtree(model, ignore_errors=True)
        self.trainer([record for record in self.records if drawn_owner(record) in run.providers], run.seed, model)
        values = log_likelihoods(load_model(model, dtype="fp32"), self.outputs, self._max_length)
        # The result before the model goes: a kill in between costs disk, not a training.
        self._keep(run, values)
        shutil.rmtree(model)
        return values

    def _keep(self, run: Counterfactual, values: NDArray[np.float64]) -> None:
        body = {"providers": sorted(run.providers), "seed": run.seed, "log_likelihood": values.tolist()}
        write_whole(self._path(run), json.dumps(body).encode())

    def outcomes(
        self,
        runs: Sequence[Counterfactual],
        *,
        engine: Engine | None = None,
        progress: Progress | None = None,
    ) -> dict[Counterfactual, NDArray[np.float64]]:
        """Return the log-likelihoods of the outputs (Q,) after each of many retrainings.

        Killed at any moment and called again, it resumes: finished retrainings are kept.

        Args:
            runs: the retrainings.
            engine: its workers retrain, one model each at a time; None for this process.
            progress: called with the number of retrainings done, and of all.

        Raises:
            LockHeldError: another validation is at work in the same folder.
            EngineError: workers died, or cannot be reached.
        """
        with only_one(self.folder / ".lock", self._at_work):
            nobody_has(self.folder.glob(SLICE_LOCKS), self._at_work)
            # A half can be the complement of another one: the same retraining may be asked for twice.
            self._make(list({self._path(run): run for run in runs}.values()), engine, progress)
            return {run: self.outcome(run) for run in runs}

    def make_slice(
        self,
        runs: Sequence[Counterfactual],
        part: Slice,
        *,
        engine: Engine | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Make a slice of many retrainings, and return its number of them. `outcomes` makes what is missing then.

        Raises:
            LockHeldError: another process is at work on this slice.
            EngineError: workers died, or cannot be reached.
        """
        with only_one(self.folder / part.lock, self._at_work):
            distinct = {self._path(run): run for run in runs}.values()
            own = [run for number, run in enumerate(distinct) if number in part]
            self._make(own, engine, progress)
            return len(own)

    @property
    def _at_work(self) -> str:
        return f"another validation is at work in {self.folder}; wait for it to end"

    def _make(self, runs: Sequence[Counterfactual], engine: Engine | None, progress: Progress | None) -> None:
        """Make those of some retrainings that have no result yet."""
        missing = [run for run in runs if not self._path(run).is_file()]
        done = len(runs) - len(missing)
        if progress:
            progress(done, len(runs))
        made = (engine or InProcess()).run(self, missing) if missing else ()
        for number, (position, values) in enumerate(made, start=done + 1):
            if not self._path(missing[position]).is_file():  # made on a machine without this folder
                self._keep(missing[position], values)
            if progress:
                progress(number, len(runs))

    def _path(self, run: Counterfactual) -> Path:
        key = hashlib.sha256(canonical_json([*self._inputs, sorted(run.providers), run.seed]).encode()).hexdigest()
        return self.folder / f"{key[:32]}.json"


def _read_result(path: Path, outputs: int) -> NDArray[np.float64]:
    """Return the log-likelihoods (Q,) of a retraining.

    Raises:
        MismatchError: the file is damaged, or tells of another number of outputs.
    """
    try:
        values = np.asarray(parse_object(path.read_bytes())["log_likelihood"], dtype=np.float64)
    except (ValueError, TypeError, KeyError) as error:
        raise MismatchError(f"{path} is damaged ({error}); delete it, and the model is trained again") from error
    if values.shape != (outputs,):
        raise MismatchError(f"{path} has {values.size} results for {outputs} outputs; delete it to train again")
    return values


def _digest(records: Sequence[TrainingRecord] | Sequence[LoggedOutput]) -> str:
    hasher = hashlib.sha256()
    for record in records:
        # Records without splits keep the hash that they had before splits existed.
        content = {name: value for name, value in asdict(record).items() if name != "splits" or value}
        hasher.update(json.dumps(content, sort_keys=True, default=str).encode())
    return hasher.hexdigest()
