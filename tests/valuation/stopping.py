"""Builds that are stopped again and again, and go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Step = tuple[str, int, int]
"""Phase, tokens done, tokens in all."""


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
