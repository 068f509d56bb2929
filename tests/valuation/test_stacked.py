"""Layers side by side give what each would give by itself, and a GPU's way of summing what a CPU's does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from credit.valuation.batches import one_behind
from credit.valuation.gradients import Gradients, RowSums
from credit.valuation.rows import PlacedShares, RowShares

WIDTHS = {"a": 3, "b": 5, "c": 3, "d": 7, "e": 5}


def _layers(examples: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(examples, d, generator=generator, dtype=torch.float64) for n, d in WIDTHS.items()}


def test_layers_of_one_width_are_stacked_and_keep_their_order():
    layers = _layers(4)
    gradients = Gradients.of(layers)
    assert [names for names, _ in gradients.stacks] == [("a", "c"), ("b", "e"), ("d",)]
    assert list(gradients) == list(layers)
    assert gradients.examples == 4
    for name, rows in layers.items():
        assert torch.equal(gradients[name], rows)
    assert gradients["d"].data_ptr() == layers["d"].data_ptr(), "what is alone is not copied"
    assert Gradients.of(gradients) is gradients
    assert gradients.rows(range(4)) is gradients
    chosen = gradients.rows([1, 3])
    assert list(chosen) == list(layers)
    for name, rows in layers.items():
        assert torch.equal(chosen[name], rows[[1, 3]])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("layer", ["c", "d"])
def test_one_number_that_is_not_finite_marks_its_example_alone(layer, value):
    layers = _layers(4)
    layers[layer][2, 1] = value
    assert Gradients.of(layers).finite().tolist() == [True, True, False, True]


@given(
    examples=st.integers(1, 6),
    parts=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.floats(0.01, 1.0)), min_size=1, max_size=12),
    batches=st.integers(1, 3),
)
def test_sums_by_a_product_are_those_of_one_after_the_other(examples, parts, batches):
    of, row, share = (np.asarray(column) for column in zip(*parts, strict=True))
    placed = RowShares(of % examples, row, share.astype(np.float64)).on(torch.device("cpu"), examples)
    rows, slots = np.unique(row, return_inverse=True)
    mixing = np.zeros((len(rows), examples))
    np.add.at(mixing, (slots, of % examples), share)
    product = PlacedShares(torch.from_numpy(rows), mixing=torch.from_numpy(mixing))
    ours, theirs = RowSums(5), RowSums(5)
    expected = {name: torch.zeros(5, width, dtype=torch.float64) for name, width in WIDTHS.items()}
    for number in range(batches):
        layers = _layers(examples, number)
        ours.add(Gradients.of(layers), placed)
        theirs.add(Gradients.of(layers), product)
        for name, rows_of in layers.items():
            for example, target, part in zip(of % examples, row, share, strict=True):
                expected[name][target] += part * rows_of[example]
    for name in WIDTHS:
        torch.testing.assert_close(ours.layers[name], expected[name])
        torch.testing.assert_close(theirs.layers[name], expected[name])


def test_a_layer_by_itself_and_all_together_go_into_the_same_sums():
    layers, sums = _layers(2), RowSums(3)
    parts = RowShares(np.arange(2), np.asarray([0, 2]), np.ones(2)).on(torch.device("cpu"), 2)
    for name in ("d", "a"):
        sums.add_layer(name, layers[name], parts)
    sums.add(Gradients.of(layers), parts)
    sums.add_layer("c", layers["c"], parts)
    for name, rows in layers.items():
        times = 2 if name in "dac" else 1
        torch.testing.assert_close(sums.layers[name][[0, 2]], times * rows)
        assert not sums.layers[name][1].any()


@pytest.mark.parametrize(("device", "ahead"), [("cpu", 1), ("cuda", 2)])
def test_on_a_gpu_a_batch_is_looked_at_when_the_next_was_launched(device, ahead):
    launched = []

    def launch():
        for number in range(5):
            launched.append(number)
            yield number

    seen = []
    for number in one_behind(launch(), torch.device(device)):
        assert len(launched) == min(number + ahead, 5)
        seen.append(number)
    assert seen == list(range(5))
    assert list(one_behind([], torch.device(device))) == []
