"""Layers side by side give what each would give by itself, and a GPU's way of summing what a CPU's does."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from credit.valuation import gradients as gradients_module
from credit.valuation.curvature import make_statistic
from credit.valuation.gradients import Gradients, RowSums, add_grams, mirror
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


@given(width=st.integers(1, 40), heights=st.lists(st.integers(1, 9), min_size=1, max_size=4), panel=st.integers(1, 50))
def test_the_sum_of_products_is_that_of_whole_products_whatever_the_panels(width, heights, panel):
    generator = torch.Generator().manual_seed(width)
    total, expected = torch.zeros(2, width, width, dtype=torch.float64)
    with patch.dict(gradients_module.PANEL_COLUMNS, cpu=panel):
        for height in heights:
            rows = torch.randn(height, width, generator=generator, dtype=torch.float64)
            add_grams([total], rows[None])
            expected += rows.mT @ rows
            torch.testing.assert_close(mirror(total), expected)  # more is added after it


def test_asking_for_sums_between_blocks_changes_no_bit_of_them():
    rows = torch.randn(300, 40, generator=torch.Generator().manual_seed(0))
    asked, left = make_statistic("fisher"), make_statistic("fisher")
    for statistic in (asked, left):
        for block in rows.split(100):
            statistic.add({"layer": block})
            statistic.flush()
            if statistic is asked:
                statistic.sums()
    assert torch.equal(asked.sums()["layer"], left.sums()["layer"])
