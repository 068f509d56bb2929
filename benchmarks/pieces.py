"""Cost of a build's parts beside the obvious way to do the same: CPU milliseconds, one thread, median of 5.

python -m benchmarks.pieces
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Clock, Table, describe, environment, median
from credit.valuation.gradients import add_grams, mirror
from credit.valuation.influence import project
from credit.valuation.losses import sequence_losses


def milliseconds(work: Callable[[], Any], repeats: int = 5) -> str:
    """Return the CPU milliseconds of a call, after an uncounted one."""
    work()
    clocks = []
    for _ in range(repeats):
        clock = Clock()
        with clock.running():
            work()
        clocks.append(clock)
    return f"{1e3 * median(clocks).cpu:.1f}"


def plain_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss by autograd, over the predicting positions."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


def main() -> None:
    torch.set_num_threads(1)
    print(describe(environment()))
    table = Table("piece", "this project", "the obvious way")
    logits = torch.randn(4, 256, 50257, requires_grad=True)
    labels = torch.randint(50257, (4, 256))
    ways = [
        milliseconds(lambda loss=loss: torch.autograd.grad(loss(logits, labels).sum(), logits))
        for loss in (sequence_losses, plain_losses)
    ]
    table.row("loss of 1024 positions and its gradient, vocabulary 50257", *ways)
    for title, count, width in (
        ("256 gradients of 4096 numbers to the Fisher", 256, 4096),
        ("second moment of 4096 positions, width 1536", 4096, 1536),
        ("second moment of 4096 positions, width 576", 4096, 576),
    ):
        rows, total = torch.randn(count, width), torch.zeros(width, width)
        ours = milliseconds(lambda total=total, rows=rows: add_grams([total], rows[None]))
        table.row(title, ours, milliseconds(lambda total=total, rows=rows: total.add_(rows.mT @ rows)))
        expected = rows.double().mT @ rows.double()
        add_grams([total.zero_()], rows[None])
        assert torch.allclose(mirror(total).double(), expected, rtol=1e-3, atol=1e-2), "the sums differ"
    for width in (576, 2048):
        x = torch.randn(4096, width)
        sides = [torch.randn(64, width) for _ in range(3)]
        together = torch.cat(sides)
        expected = torch.cat([project(x, side) for side in sides], -1)
        assert torch.allclose(project(x, together), expected, rtol=1e-4, atol=1e-3), "the projections differ"
        each = milliseconds(lambda x=x, sides=sides: [project(x, side) for side in sides])
        title = f"4096 inputs of width {width} projected to rank 64 by three layers"
        table.row(title, milliseconds(lambda x=x, together=together: project(x, together)), each)
        table.row(f"{title}, all alike", milliseconds(lambda x=x, sides=sides: project(x, sides[0])), each)


if __name__ == "__main__":
    main()
