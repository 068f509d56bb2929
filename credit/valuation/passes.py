"""Passes over examples, batch after batch; a batch that does not fit into memory is split, and the pass goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from credit.errors import ValuationError
from credit.valuation.batching import plan_batches
from credit.valuation.gradients import GradientTap
from credit.valuation.readings import Reading, make_cut, readings
from credit.valuation.stacked import Gradients
from credit.valuation.task import AnyExample, Task, device_of
from credit.valuation.transfer import Download, one_behind

_TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 16384}
"""Padded tokens in a batch unless told: on a GPU enough that it computes for longer than the host takes to launch."""

_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"

T = TypeVar("T")


def gradient_batches(
    task: Task,
    tap: GradientTap,
    examples: Sequence[AnyExample],
    tokens_per_batch: int | None,
    *,
    excluded: list[int] | None = None,
) -> Iterator[tuple[list[int], Gradients]]:
    """Yield the projected gradients of all examples, each once, in batches of windows of like length.

    One example whose gradient is not finite leaves the others of its batch as they are: their losses are summed, and
    nothing of one goes into the gradient of another. On a GPU a batch is yielded when the next has been launched.

    Args:
        task: the model.
        tap: an entered tap on it.
        examples: N examples.
        tokens_per_batch: padded positions in a batch, at most; None for 4096, on a GPU 16384.
        excluded: takes the positions of examples whose gradient is not finite, which are not yielded; without it, the
            first such example is an error.

    Yields:
        Positions in `examples` (n), and for each layer their gradients (n, S·R), vec in row-major order.

    Raises:
        ValuationError: an example's gradient is not finite, or it does not fit into memory by itself.
    """

    def run(batch: list[Reading]) -> tuple[Gradients, Download]:
        gradients = _gradients(task, tap, examples, batch)
        return gradients, Download(gradients.finite())

    launched = in_batches(task, readings(examples), tokens_per_batch, run)
    for batch, (gradients, flags) in one_behind(launched, device_of(task)):
        positions = [place for reading in batch for place in reading.places]
        finite: list[bool] = flags.read().tolist()
        if all(finite):
            yield positions, gradients
            continue
        bad = [p for p, good in zip(positions, finite, strict=True) if not good]
        if excluded is None:
            raise ValuationError(not_finite(examples[bad[0]], task))
        excluded.extend(bad)
        if kept := [row for row, good in enumerate(finite) if good]:
            yield [positions[row] for row in kept], gradients.rows(kept)


def tokens_in_batch(tokens_per_batch: int | None, device: torch.device) -> int:
    """Return the padded tokens in a batch, at most; None is for what suits the device."""
    return tokens_per_batch or _TOKENS_PER_BATCH.get(device.type, _TOKENS_PER_BATCH["cpu"])


def in_batches(
    task: Task, waiting: Sequence[Reading], tokens_per_batch: int | None, run: Callable[[list[Reading]], T]
) -> Iterator[tuple[list[Reading], T]]:
    """Run batches of windows of like length; one that does not fit into memory is halved until it does.

    What did not fit is not tried again: later batches of its size are halved before they are run.

    Args:
        task: the model, for its device.
        waiting: the windows, with what is read in them.
        tokens_per_batch: padded positions in a batch, at most; None for 4096, on a GPU 16384.
        run: runs a batch; must leave nothing behind when it fails.

    Yields:
        A batch, and what `run` returned for it.

    Raises:
        ValuationError: a single window does not fit.
    """
    budget = tokens_in_batch(tokens_per_batch, device_of(task))
    plan = plan_batches([reading.window.size for reading in waiting], budget)
    batches = deque([waiting[place] for place in places] for places in plan)
    fits: float = float("inf")
    while batches:
        batch = batches.popleft()
        padded = max(reading.window.size for reading in batch) * len(batch)
        if padded <= fits or len(batch) == 1:
            failure: str | None = None
            try:
                result = run(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error).splitlines()[0]
            # Outside the handler: the error's frames hold the tensors of the pass, and must be gone first.
            if failure is None:
                yield batch, result
                continue
            release_memory(device_of(task))
            if len(batch) == 1:
                alone = batch[0].window
                raise ValuationError(
                    f"{alone.id} ({alone.size} tokens) does not fit into the memory of {device_of(task)} even alone "
                    f"({failure}); lower --max-length, use --dtype bf16, or watch fewer layers with --layers"
                )
            fits = padded / 2
        half = len(batch) // 2
        batches.extendleft([batch[half:], batch[:half]])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, in torch's CPU allocator or in Python."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _CPU_OUT_OF_MEMORY in str(error)


def release_memory(device: torch.device) -> None:
    """Give back what the allocator keeps: the next, smaller batch needs blocks of other sizes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def not_finite(example: AnyExample, task: Task) -> str:
    """Say that an example's gradient is not finite, and what might help."""
    return f"the gradient of {example.id} is not finite in {task.location}; try --dtype fp32"


def _gradients(task: Task, tap: GradientTap, examples: Sequence[AnyExample], batch: Sequence[Reading]) -> Gradients:
    """Gradients of the examples that are read in a batch of windows, in the order of its readings."""
    made = task.batch([reading.window for reading in batch])
    cut = make_cut(batch, examples, device_of(task))
    return Gradients.of({name: rows.flatten(1) for name, rows in tap.collect(made.loss, made.size, cut).items()})
