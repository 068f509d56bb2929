"""A callback of two lines that indexes the model of a Hugging Face `Trainer`.

    from credit.valuation.trainer_callback import IndexCallback

    index = IndexCallback(records, Path("my-index"), IndexSettings(rank=64), name="my-llm", steps=[500, 1000])
    Trainer(model, args, train_dataset=..., processing_class=tokenizer, callbacks=[index]).train()

When training ends, the callback indexes the model saved last, or the best one if the Trainer loads it. The
checkpoints at `steps` become further checkpoints of equal weight. Each is one pass over the records at fixed weights,
so that every number is the gradient of a model on disk, and can be computed again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from credit.errors import ValuationError
from credit.records import TrainingRecord
from credit.valuation.build import BuildResult, Checkpoint, build_index
from credit.valuation.language_model import load_model
from credit.valuation.manifest import IndexSettings


class IndexCallback(TrainerCallback):
    """Builds an attribution index when training ends. Only the main process builds.

    Args:
        records: the training data, tagged with groups.
        out: folder of the index.
        settings: rank, projection, curvature and so on.
        name: name of the model in logs.
        steps: steps with a further checkpoint. The callback has them saved, even if the Trainer would not.
        dtype: dtype of the loaded models; see `load_model`.
        exclude_non_finite: see `build_index`.

    Attributes:
        result: the result of the build; None before training has ended.
    """

    def __init__(
        self,
        records: Sequence[TrainingRecord],
        out: Path,
        settings: IndexSettings,
        *,
        name: str,
        steps: Collection[int] = (),
        dtype: str = "auto",
        exclude_non_finite: bool = False,
    ) -> None:
        self._records, self._out, self._settings, self._name = records, out, settings, name
        self._steps, self._dtype, self._exclude = frozenset(steps), dtype, exclude_non_finite
        self.result: BuildResult | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Refuse a training that would not keep the checkpoints.

        Raises:
            ValuationError: the Trainer would delete checkpoints, or has fewer steps.
        """
        if self._steps and args.save_total_limit is not None:
            raise ValuationError(
                f"save_total_limit={args.save_total_limit} deletes checkpoints, with which outputs are to be valued; "
                "leave it out, or index no steps"
            )
        if late := [step for step in sorted(self._steps) if not 0 < step <= state.max_steps]:
            raise ValuationError(f"step {late[0]} is to be indexed, but training has {state.max_steps} steps")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Have the chosen steps, and the last one, saved."""
        if state.global_step in self._steps or state.global_step >= state.max_steps:
            control.should_save = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Build the index.

        Raises:
            ValuationError: a checkpoint is missing.
            MismatchError, LockHeldError: see `build_index`.
        """
        if not state.is_world_process_zero:
            return
        runs = Path(str(args.output_dir))
        final = runs / f"checkpoint-{state.global_step}"
        if args.load_best_model_at_end and state.best_model_checkpoint:
            final = Path(state.best_model_checkpoint)
        load = partial(load_model, dtype=self._dtype, device=str(args.device))
        folders = [runs / f"checkpoint-{step}" for step in sorted(self._steps)]
        self.result = build_index(
            load(final),
            self._records,
            self._out,
            self._settings,
            name=self._name,
            checkpoints=[Checkpoint(partial(load, folder)) for folder in folders if folder != final],
            exclude_non_finite=self._exclude,
        )
