"""The functions of `influence`, one after the other, against the oracle's dense inverse and plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from credit.valuation import influence as formula
from credit.valuation.curvature import make_curvature, make_statistic
from credit.valuation.influence import GroupRows, influence, precondition, projected_gradient, summarise
from credit.valuation.projection import Side, SideSpec, vocabulary_hashing
from tests.valuation import oracle

EXAMPLES, OUTPUTS, TOKENS, INPUTS, WIDTH = 7, 3, 5, 6, 9
DAMPING = 0.3


def _gradients(count: int, seed: int, p_in: Side, p_out: Side) -> tuple[Tensor, Tensor]:
    """Projected gradients of one layer by the engine (count, D), and by explicit sums over tokens."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, TOKENS, INPUTS, generator=generator, dtype=torch.float64)
    dy = torch.randn(count, TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    left, right = oracle.dense(p_out, WIDTH), oracle.dense(p_in, INPUTS)
    plain = [
        sum(torch.outer(left @ delta, right @ seen) for delta, seen in zip(own_dy, own_x, strict=True)).flatten()
        for own_x, own_dy in zip(x, dy, strict=True)
    ]
    return projected_gradient(x, dy, p_in, p_out).flatten(1), torch.stack(plain)


@pytest.mark.parametrize("hashed", [False, True], ids=["dense", "hashed"])
@pytest.mark.parametrize("rank", [2, None], ids=["projected", "identity"])
def test_the_formula_step_by_step_is_the_definition(hashed, rank):
    p_in = None if rank is None else torch.randn(rank, INPUTS, dtype=torch.float64)
    p_out = torch.randn(4, WIDTH, dtype=torch.float64)
    if hashed:
        p_out = vocabulary_hashing(SideSpec(WIDTH, 4, 1)).to(torch.device("cpu"), torch.float64)
    train, plain_train = _gradients(EXAMPLES, 1, p_in, p_out)
    queries, plain_queries = _gradients(OUTPUTS, 2, p_in, p_out)
    torch.testing.assert_close(train, plain_train)
    statistic = make_statistic("fisher")
    statistic.add({"layer": train})
    curvature = make_curvature("fisher", statistic.sums(), EXAMPLES, DAMPING)
    ready = {"layer": precondition(queries, curvature.factors["layer"])}
    ours = influence(ready, [("layer", train)], 1 / EXAMPLES)
    as_layers = [[{"layer": row} for row in rows] for rows in (plain_train, plain_queries)]
    torch.testing.assert_close(ours, oracle.influence_matrix(*as_layers, DAMPING))


def test_a_diagonal_curvature_divides_elementwise_and_layers_are_summed():
    gradients = torch.tensor([[2.0, 6.0]], dtype=torch.float64)
    ready = {"a": precondition(gradients, torch.tensor([2.0, 3.0], dtype=torch.float64)), "b": gradients}
    rows = [("a", torch.eye(2, dtype=torch.float64)), ("b", torch.ones(2, 2, dtype=torch.float64))]
    torch.testing.assert_close(influence(ready, rows, 0.5), torch.tensor([[4.5, 5.0]], dtype=torch.float64))


def test_slices_of_outputs_change_no_bit(monkeypatch):
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(37, 60, generator=generator)
    mass = torch.rand(60, generator=generator, dtype=torch.float64) + 0.1
    count = torch.randint(1, 4, (60,), generator=generator)
    count[:9] = 1  # the first group keeps a row for each example
    rows = GroupRows(torch.arange(60) // 9, count, 7, mass, mass.square())
    whole = summarise(values, rows)
    for numbers in (1, 60 * 5, 60 * 36 + 59):
        monkeypatch.setattr(formula, "SLICE_NUMBERS", numbers)
        found = summarise(values, rows)
        for name in ("influence", "excess", "support", "volume", "noise"):
            assert torch.equal(getattr(found, name), getattr(whole, name)), name
    assert summarise(values[:0], rows).support.shape == (0, 7)
