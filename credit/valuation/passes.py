"""Passes over examples, batch after batch; a batch that does not fit into memory is split, and the pass goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation.batching import plan_batches
from credit.valuation.gradients import GradientTap
from credit.valuation.task import AnyExample, Task, device_of

DEFAULT_TOKENS_PER_BATCH = 4096

_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"

T = TypeVar("T")


def gradient_batches(
    task: Task,
    tap: GradientTap,
    examples: Sequence[AnyExample],
    tokens_per_batch: int,
    *,
    excluded: list[int] | None = None,
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Yield the projected gradients of all examples, each once, in batches of like length.

    One example whose gradient is not finite leaves the others of its batch as they are: their losses are summed, and
    nothing of one goes into the gradient of another.

    Args:
        task: the model.
        tap: an entered tap on it.
        examples: N examples.
        tokens_per_batch: padded positions in a batch, at most.
        excluded: takes the positions of examples whose gradient is not finite, which are not yielded; without it, the
            first such example is an error.

    Yields:
        Positions in `examples` (n), and for each layer their gradients (n, S·R), vec in row-major order.

    Raises:
        ValuationError: an example's gradient is not finite, or it does not fit into memory by itself.
    """

    def run(positions: list[int]) -> dict[str, Tensor]:
        return _gradients(task, tap, [examples[p] for p in positions])

    for positions, gradients in in_batches(task, examples, tokens_per_batch, run):
        finite = finite_gradients(gradients)
        if all(finite):
            yield positions, gradients
            continue
        bad = [p for p, good in zip(positions, finite, strict=True) if not good]
        if excluded is None:
            raise ValuationError(not_finite(examples[bad[0]], task))
        excluded.extend(bad)
        if kept := [row for row, good in enumerate(finite) if good]:
            yield [positions[row] for row in kept], chosen_rows(gradients, kept)


def chosen_rows(gradients: dict[str, Tensor], chosen: Sequence[int]) -> dict[str, Tensor]:
    """Return the rows `chosen`, in ascending order, of every layer's gradients (N, D)."""
    if len(chosen) == len(next(iter(gradients.values()))):
        return gradients
    return {name: rows[list(chosen)] for name, rows in gradients.items()}


def in_batches(
    task: Task, examples: Sequence[AnyExample], tokens_per_batch: int, run: Callable[[list[int]], T]
) -> Iterator[tuple[list[int], T]]:
    """Run batches of examples of like length; one that does not fit into memory is halved until it does.

    What did not fit is not tried again: later batches of its size are halved before they are run.

    Args:
        task: the model, for its device.
        examples: N examples.
        tokens_per_batch: padded positions in a batch, at most.
        run: gets positions in `examples`; must leave nothing behind when it fails.

    Yields:
        Positions, and what `run` returned for them.

    Raises:
        ValuationError: a single example does not fit.
    """
    sizes = [example.size for example in examples]
    waiting = deque(plan_batches(sizes, tokens_per_batch))
    fits: float = float("inf")
    while waiting:
        positions = waiting.popleft()
        padded = max(sizes[p] for p in positions) * len(positions)
        if padded <= fits or len(positions) == 1:
            failure: str | None = None
            try:
                result = run(positions)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error).splitlines()[0]
            # Outside the handler: the error's frames hold the tensors of the pass, and must be gone first.
            if failure is None:
                yield positions, result
                continue
            release_memory(device_of(task))
            if len(positions) == 1:
                alone = examples[positions[0]]
                raise ValuationError(
                    f"{alone.id} ({alone.size} tokens) does not fit into the memory of {device_of(task)} even alone "
                    f"({failure}); lower --max-length, use --dtype bf16, or watch fewer layers with --layers"
                )
            fits = padded / 2
        half = len(positions) // 2
        waiting.extendleft([positions[half:], positions[:half]])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, in torch's CPU allocator or in Python."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _CPU_OUT_OF_MEMORY in str(error)


def release_memory(device: torch.device) -> None:
    """Give back what the allocator keeps: the next, smaller batch needs blocks of other sizes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def example_gradients(task: Task, tap: GradientTap, examples: Sequence[AnyExample]) -> dict[str, Tensor]:
    """Projected gradients of a batch of examples: for each layer (N, S·R), vec in row-major order.

    Raises:
        ValuationError: an example's gradient is not finite; the message names the example.
    """
    gradients = _gradients(task, tap, examples)
    for example, finite in zip(examples, finite_gradients(gradients), strict=True):
        if not finite:
            raise ValuationError(not_finite(example, task))
    return gradients


def not_finite(example: AnyExample, task: Task) -> str:
    """Say that an example's gradient is not finite, and what might help."""
    return f"the gradient of {example.id} is not finite in {task.location}; try --dtype fp32"


def _gradients(task: Task, tap: GradientTap, examples: Sequence[AnyExample]) -> dict[str, Tensor]:
    batch = task.batch(examples)
    return {name: rows.flatten(1) for name, rows in tap.collect(batch.loss, batch.size).items()}


def finite_gradients(gradients: dict[str, Tensor]) -> list[bool]:
    """Whether each example's gradient is finite in all layers."""
    finite: list[bool] = torch.stack([rows.sum(1) for rows in gradients.values()]).sum(0).isfinite().tolist()
    return finite
