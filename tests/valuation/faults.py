"""Faults that tests put into a build: interruptions, non-finite values, and memory that runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from credit.records import Group, TrainingRecord
from credit.valuation.language_model import LanguageModel
from tests.models import sentence
from tests.valuation.conftest import FOLDED, SINGLE

T = TypeVar("T")
Step = tuple[str, int, int]
"""Phase, tokens done, tokens in all."""

GONE = Group("fay")
BAD = [
    TrainingRecord("bad-1", FOLDED, f"{sentence(1, 4)} z {sentence(2, 3)}"),
    TrainingRecord("bad-2", SINGLE, "z z"),
    TrainingRecord("bad-3", GONE, f"{sentence(3, 9)} z"),
]
"""Records with the letter z, which `poisoned` makes non-finite."""
GPU_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def stopped_often(
    build: Callable[[Callable[[str, int, int], None]], T], *, most: int, every: int = 3
) -> tuple[T, list[Step]]:
    """Run a build with a progress that stops it at every third step, or so, until it ends; `most` times at the most.

    Returns:
        What the build returned, and the steps of all runs.
    """
    steps: list[Step] = []

    def stop(phase: str, done: int, total: int) -> None:
        steps.append((phase, done, total))
        if len(steps) % every == 0:
            raise KeyboardInterrupt

    for _ in range(most):
        try:
            return build(stop), steps
        except KeyboardInterrupt:
            continue
    raise AssertionError(f"the build did not end in {most} runs")


@contextmanager
def poisoned(model: LanguageModel, where: str = "input") -> Iterator[None]:
    """Make whatever holds the letter z come to a NaN on its way in, or to an infinity on the way back."""
    (token,) = model.tokenizer("z", add_special_tokens=False)["input_ids"]
    seen: list[torch.Tensor] = []

    def enter(_module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor | None:
        seen[:] = [args[0] == token]
        return y.masked_fill(seen[0][..., None], float("nan")) if where == "input" else None

    def leave(_module: nn.Module, _args: object, y: Tensor) -> None:
        if where == "gradient" and y.requires_grad:
            y.register_hook(lambda g: g.masked_fill(seen[0].any(1)[:, None, None], float("inf")))

    last = [m for name, m in model.module.named_modules() if name.endswith("mlp")][-1]
    handles = [
        model.module.get_input_embeddings().register_forward_hook(enter),
        last.register_forward_hook(leave),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def memory_for(module: nn.Module, tokens: int, *, during: str, error: Exception = GPU_ERROR) -> Iterator[list[int]]:
    """Let a model run out of memory above a number of padded tokens, in the forward pass or late in the backward pass.

    Yields the sizes of the batches that were tried.
    """
    tried: list[int] = []
    first = next(m for m in module.modules() if isinstance(m, nn.Embedding))
    late = module.get_submodule(next(name for name, _ in module.named_modules() if name.endswith(".0")))

    def fail(*_: object) -> None:
        raise error

    def forward(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        tried.append(args[0].numel())
        if during == "forward" and tried[-1] > tokens:
            fail()

    def backward(_module: nn.Module, _args: object, y: object) -> None:
        # By the time that the gradient comes to the first block, layers above it have handed over theirs.
        hidden = y[0] if isinstance(y, tuple) else y
        if during == "backward" and tried[-1] > tokens and hidden.requires_grad:
            hidden.register_hook(fail)

    handles = [first.register_forward_pre_hook(forward), late.register_forward_hook(backward)]
    try:
        yield tried
    finally:
        for handle in handles:
            handle.remove()
