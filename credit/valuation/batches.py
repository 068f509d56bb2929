"""Batches of windows, and passes over them for the projected gradients of their examples.

Windows of like length share a batch, to spend little on padding. A batch too large for the memory is split, and the
pass goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation.gradients import Gradients, WindowCut
from credit.valuation.hooks import GradientTap
from credit.valuation.task import AnyExample, Task, device_of, upload
from credit.valuation.tokens import Segment, Window

IGNORED = -100
"""Label of a token that is not predicted."""

_TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 16384}
"""Default of the padded tokens in a batch: enough that a GPU computes for longer than the host takes to launch."""

_CPU_OUT_OF_MEMORY = "DefaultCPUAllocator"

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Called after every batch with a phase, the tokens done and the tokens in all."""


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """Windows padded on the right to one length.

    The model gets no attention mask. In a causal model no token attends to later positions, so padding changes nothing.
    With a mask some padding would have nothing to attend to (beyond a sliding window, say), and some kernels answer
    that with NaN.

    Attributes:
        input_ids: (N, T) token ids.
        real: (N, T) bool, False at padding.
        labels: (N, T) token ids where they are predicted and paid for, else -100.
    """

    input_ids: Tensor
    real: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """Number of windows N."""
        return self.input_ids.shape[0]

    def to(self, device: torch.device) -> PaddedBatch:
        """Return the batch on another device."""
        return PaddedBatch(upload(self.input_ids, device), upload(self.real, device), upload(self.labels, device))


def plan_batches(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Group sequences into batches of at most `tokens_per_batch` tokens, padding included; return their positions.

    Sequences are sorted by length, ties by position, so the same lengths give the same plan. A sequence longer
    than the budget is a batch of its own.
    """
    # By length: a batch of like lengths has little padding.
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


def make_batch(windows: Sequence[Window]) -> PaddedBatch:
    """Pad windows on the right. Padding has the id 0, which does not matter: no token attends to it or predicts it."""
    width = max(len(window.tokens) for window in windows)
    input_ids = np.zeros((len(windows), width), dtype=np.int64)
    real = np.zeros((len(windows), width), dtype=np.bool_)
    labels = np.full((len(windows), width), IGNORED, dtype=np.int64)
    for row, window in enumerate(windows):
        length = len(window.tokens)
        input_ids[row, :length] = window.tokens
        real[row, :length] = True
        labels[row, window.start : length] = window.tokens[window.start :]
        if window.echo is not None:
            labels[row, :length][window.echo] = IGNORED
    return PaddedBatch(torch.from_numpy(input_ids), torch.from_numpy(real), torch.from_numpy(labels))


@dataclass(frozen=True, slots=True)
class WindowExamples:
    """A window, its number of positions, and the places of its examples in a sequence of examples."""

    window: AnyExample
    size: int
    places: list[int]


def by_window(examples: Sequence[AnyExample]) -> list[WindowExamples]:
    """Gather the segments of each window; an example that is no segment is a window of its own.

    Windows come in the order of their first appearance.
    """
    found: dict[int, WindowExamples] = {}  # by identity: ids of outputs need not be unique
    for place, example in enumerate(examples):
        if isinstance(example, Segment):
            window = example.window
            if id(window) not in found:
                found[id(window)] = WindowExamples(window, window.size, [])
            found[id(window)].places.append(place)
        else:
            found[-1 - place] = WindowExamples(example, example.size, [place])
    return list(found.values())


def make_cut(batch: Sequence[WindowExamples], examples: Sequence[AnyExample], device: torch.device) -> WindowCut | None:
    """Return the example of each position of a batch; None if every window is one example.

    The examples of the batch are numbered in the order of its windows.
    """
    own = [[examples[place] for place in window.places] for window in batch]
    segments = [example for examples_here in own for example in examples_here if isinstance(example, Segment)]
    if not segments:
        return None
    length = segments[0].length
    width = max(window.size for window in batch)
    each = -(-width // length)  # cells of a window
    number = 0
    cells: list[int] = []
    owner: list[int] = []
    for row, examples_here in enumerate(own):
        for example in examples_here:
            taken = _cells(example, length) if isinstance(example, Segment) else range(each)
            cells += [row * each + cell for cell in taken]
            owner += [number] * len(taken)
            number += 1
    every = owner == list(range(len(batch) * each)) == cells
    numbers = None if every else upload(torch.tensor(cells), device)
    return WindowCut(length, width, numbers, upload(torch.tensor(owner), device), number)


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

    A non-finite gradient leaves those of the other examples in its batch as they are: losses are summed, so no
    example enters the gradient of another. On a GPU a batch is yielded after the next has been launched.

    Args:
        task: the model.
        tap: an entered tap on it.
        examples: N examples.
        tokens_per_batch: padded positions in a batch, at most; None for 4096, on a GPU 16384.
        excluded: takes the positions of examples with non-finite gradients, which are not yielded. Without it, the
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
        positions = [place for window in batch for place in window.places]
        finite: list[bool] = flags.read().tolist()
        if all(finite):
            yield positions, gradients
            continue
        bad = [p for p, good in zip(positions, finite, strict=True) if not good]
        if excluded is None:
            raise ValuationError(not_finite(examples[bad[0]], task))
        # The rest of the batch is sound: no example enters the gradient of another.
        excluded.extend(bad)
        if kept := [row for row, good in enumerate(finite) if good]:
            yield [positions[row] for row in kept], gradients.rows(kept)


class Download:
    """Copy of a tensor on the host, begun when it is made. Reading waits for it alone, not for later launches."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.to("cpu", non_blocking=True)
        self._done: torch.cuda.Event | None = None
        if values.is_cuda:
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._done.record()

    def read(self) -> Tensor:
        """Return the copy."""
        if self._done:
            self._done.synchronize()
        return self._values


def one_behind(items: Iterable[T], device: torch.device) -> Iterator[T]:
    """Yield items; on a GPU each one after the next was launched, so the device never waits for the host."""
    waiting: list[T] = []
    for item in items:
        waiting.append(item)
        if device.type != "cuda" or len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def tokens_in_batch(tokens_per_batch: int | None, device: torch.device) -> int:
    """Return the most padded tokens in a batch; None stands for the default of the device."""
    return tokens_per_batch or _TOKENS_PER_BATCH.get(device.type, _TOKENS_PER_BATCH["cpu"])


def in_batches(
    task: Task,
    windows: Sequence[WindowExamples],
    tokens_per_batch: int | None,
    run: Callable[[list[WindowExamples]], T],
) -> Iterator[tuple[list[WindowExamples], T]]:
    """Run batches of windows of like length, and halve a batch too large for the memory until it fits.

    Later batches of such a size are halved before they run.

    Args:
        task: the model, for its device.
        windows: the windows, with their examples.
        tokens_per_batch: padded positions in a batch, at most; None for 4096, on a GPU 16384.
        run: runs a batch; must leave nothing behind when it fails.

    Yields:
        A batch, and what `run` returned for it.

    Raises:
        ValuationError: a single window does not fit.
    """
    budget = tokens_in_batch(tokens_per_batch, device_of(task))
    plan = plan_batches([window.size for window in windows], budget)
    batches = deque([windows[place] for place in places] for places in plan)
    fits: float = float("inf")
    while batches:
        batch = batches.popleft()
        padded = max(window.size for window in batch) * len(batch)
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
            # Remembered, so that each later batch of this size does not fail first.
            fits = padded / 2
        half = len(batch) // 2
        batches.extendleft([batch[half:], batch[:half]])


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an error of exhausted memory: of a GPU, of torch's CPU allocator or of Python."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _CPU_OUT_OF_MEMORY in str(error)


def release_memory(device: torch.device) -> None:
    """Give back the allocator's free blocks: the next, smaller batch needs blocks of other sizes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def not_finite(example: AnyExample, task: Task) -> str:
    """Return the message about an example's non-finite gradient, with a remedy."""
    return f"the gradient of {example.id} is not finite in {task.location}; try --dtype fp32"


def _gradients(
    task: Task, tap: GradientTap, examples: Sequence[AnyExample], batch: Sequence[WindowExamples]
) -> Gradients:
    """Return the gradients of a batch's examples, in the order of its windows."""
    made = task.batch([window.window for window in batch])
    cut = make_cut(batch, examples, device_of(task))
    found = tap.collect(made.loss, made.size, cut, made.positions)
    return Gradients.of({name: rows.flatten(1) for name, rows in found.items()})
