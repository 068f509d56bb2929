"""Batches of windows, and passes over them that yield the projected gradients of the examples in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation.gradients import Cut, GradientTap
from credit.valuation.stacked import Gradients
from credit.valuation.task import AnyExample, Task, device_of
from credit.valuation.tokens import Segment, Window
from credit.valuation.transfer import Download, one_behind, upload

IGNORED = -100
"""Label of a token that is not predicted."""

_TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 16384}
"""Padded tokens in a batch unless told: on a GPU enough that it computes for longer than the host takes to launch."""

_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Called after every batch with a phase, the tokens done and the tokens in all."""


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """Examples padded on the right to one length.

    No attention mask goes to the model: in a causal model nothing real attends to what comes after it, and a mask
    would leave padding that has nothing to attend to (beyond a sliding window, say), which some kernels answer
    with NaN.

    Attributes:
        input_ids: (N, T) token ids.
        real: (N, T) whether a position is a token rather than padding.
        labels: (N, T) token ids where they are predicted, else -100.
    """

    input_ids: Tensor
    real: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """Number of examples N."""
        return self.input_ids.shape[0]

    def to(self, device: torch.device) -> PaddedBatch:
        """Return the batch on another device."""
        return PaddedBatch(upload(self.input_ids, device), upload(self.real, device), upload(self.labels, device))


def plan_batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Group positions into batches of at most `tokens_per_batch` tokens, padding included.

    Sorted by length, ties by position, so that the plan is a function of its inputs. A sequence longer than the
    budget makes a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batches: list[list[int]] = []
    current: list[int] = []
    for position in order:
        if current and lengths[position] * (len(current) + 1) > tokens_per_batch:
            batches.append(current)
            current = []
        current.append(position)
    if current:
        batches.append(current)
    return batches


def make_batch(examples: Sequence[Window]) -> PaddedBatch:
    """Pad examples on the right. Nothing real attends to padding, and it is not predicted: its id does not matter."""
    width = max(len(example.tokens) for example in examples)
    input_ids = np.zeros((len(examples), width), dtype=np.int64)
    real = np.zeros((len(examples), width), dtype=np.bool_)
    labels = np.full((len(examples), width), IGNORED, dtype=np.int64)
    for row, example in enumerate(examples):
        length = len(example.tokens)
        input_ids[row, :length] = example.tokens
        real[row, :length] = True
        labels[row, example.start : length] = example.tokens[example.start :]
    return PaddedBatch(torch.from_numpy(input_ids), torch.from_numpy(real), torch.from_numpy(labels))


@dataclass(frozen=True, slots=True)
class WindowExamples:
    """A window, and the places in a sequence of examples of those that are read in it."""

    window: AnyExample
    places: list[int]


def by_window(examples: Sequence[AnyExample]) -> list[WindowExamples]:
    """Gather segments by the very window that they were cut from; whatever is whole is read by itself.

    Windows come in the order of their first appearance. Ids do not matter: those of outputs need not be unique.
    """
    found: dict[int, WindowExamples] = {}
    for place, example in enumerate(examples):
        if isinstance(example, Segment):
            found.setdefault(id(example.window), WindowExamples(example.window, [])).places.append(place)
        else:
            found[-1 - place] = WindowExamples(example, [place])
    return list(found.values())


def make_cut(batch: Sequence[WindowExamples], examples: Sequence[AnyExample], device: torch.device) -> Cut | None:
    """Say whose every position of a batch of windows is; None where every window is one example.

    The examples of the batch are numbered in the order of its by_window.
    """
    own = [[examples[place] for place in reading.places] for reading in batch]
    segments = [example for parts in own for example in parts if isinstance(example, Segment)]
    if not segments:
        return None
    length = segments[0].length
    width = max(reading.window.size for reading in batch)
    each = -(-width // length)
    number = 0
    cells: list[int] = []
    owner: list[int] = []
    for row, parts in enumerate(own):
        for example in parts:
            taken = _cells(example, length) if isinstance(example, Segment) else range(each)
            cells += [row * each + cell for cell in taken]
            owner += [number] * len(taken)
            number += 1
    every = owner == list(range(len(batch) * each)) == cells
    numbers = None if every else upload(torch.tensor(cells), device)
    return Cut(length, width, numbers, upload(torch.tensor(owner), device), number)


def _cells(segment: Segment, length: int) -> range:
    return range(segment.positions.start // length, (segment.positions.stop - 1) // length + 1)


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

    def run(batch: list[WindowExamples]) -> tuple[Gradients, Download]:
        gradients = _gradients(task, tap, examples, batch)
        return gradients, Download(gradients.finite())

    launched = in_batches(task, by_window(examples), tokens_per_batch, run)
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
    task: Task,
    waiting: Sequence[WindowExamples],
    tokens_per_batch: int | None,
    run: Callable[[list[WindowExamples]], T],
) -> Iterator[tuple[list[WindowExamples], T]]:
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


def _gradients(
    task: Task, tap: GradientTap, examples: Sequence[AnyExample], batch: Sequence[WindowExamples]
) -> Gradients:
    """Gradients of the examples that are read in a batch of windows, in the order of its by_window."""
    made = task.batch([reading.window for reading in batch])
    cut = make_cut(batch, examples, device_of(task))
    return Gradients.of({name: rows.flatten(1) for name, rows in tap.collect(made.loss, made.size, cut).items()})
