from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from credit.errors import ValuationError
from credit.valuation import AttributionIndex, build_index
from credit.valuation.layers import LayerShape, choose_layers
from credit.valuation.projection import LayerRank, projected_shape, random_projections, resolve_ranks
from credit.valuation.tokens import Window
from tests.models import HIDDEN, hidden_settings
from tests.valuation import oracle

SHAPES = (LayerShape("a.mlp.up", 16, 24), LayerShape("a.mlp.down", 24, 16), LayerShape("a.attn.q", 16, 8))


def test_the_last_rule_that_speaks_of_a_side_wins_and_no_rank_exceeds_the_width():
    assert resolve_ranks(SHAPES, 4, ()) == {shape.name: LayerRank(4, 4) for shape in SHAPES}
    rules = ("in=6,out=5", "*.mlp.*:20", "*.down:out=3")
    assert resolve_ranks(SHAPES, 4, rules) == {
        "a.mlp.up": LayerRank(16, 20),
        "a.mlp.down": LayerRank(20, 3),
        "a.attn.q": LayerRank(6, 5),
    }
    assert resolve_ranks(SHAPES, 4, ("*.mlp.*:20", "2"))["a.mlp.up"] == LayerRank(2, 2)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(SHAPES))
def test_a_side_has_the_rank_it_was_given_or_its_width(inputs, outputs, shape):
    ranks = resolve_ranks(SHAPES, 4, (f"{shape.name}:in={inputs},out={outputs}",))
    projection = random_projections(SHAPES, rank=ranks, seed=0)[shape.name]
    assert projected_shape(shape, projection) == (min(outputs, shape.out_width), min(inputs, shape.in_width))


@pytest.mark.parametrize("rule", ["", "x", "in=4,up=3", "64:", "*.mlp.*=128", "-3", "in=,out=2"])
def test_what_is_no_rank_is_refused_with_examples(rule):
    with pytest.raises(ValuationError, match=r"cannot be read; write it as 64, in=64,out=32"):
        resolve_ranks(SHAPES, 4, (rule,))


def test_a_rule_for_nothing_and_a_rank_of_nothing_are_refused():
    with pytest.raises(ValuationError, match=r"for no watched layer; layers are named like a\.mlp\.up"):
        resolve_ranks(SHAPES, 4, ("*.mpl.*:8",))
    with pytest.raises(ValuationError, match=r"rank 0 of a\.attn\.q"):
        resolve_ranks(SHAPES, 4, ("*.attn.*:out=0",))


@pytest.mark.parametrize("projection", ["random", "pca"])
def test_ranks_are_those_of_the_gradients_and_the_estimate_counts_them(model, data, outputs, out, projection):
    first = choose_layers(model.module, HIDDEN).shapes[0].name
    settings = hidden_settings(rank=3, ranks=("in=4", f"{first}:in=2,out=5"), projection=projection)
    needs = []
    build_index(model, data, out, settings, name="tiny", announce=needs.append)
    index = AttributionIndex.open(out)
    assert index.manifest.settings == settings
    for shape in index.manifest.layers:
        expected = (5, 2) if shape.name == first else (3, 4)
        assert projected_shape(shape, index.projections[shape.name]) == expected
    assert needs[0].gradient == 10 + 12 * (len(index.manifest.layers) - 1)
    assert index.value(model, outputs).influence.isfinite().all()


def test_ranks_of_sides_equal_the_dense_definition(model, data, outputs, out):
    settings = hidden_settings(rank=3, ranks=("in=5",), rows_per_group=None)
    build_index(model, data, out, settings, name="tiny")
    index = AttributionIndex.open(out)
    encoder = model.encoder(64)
    names = [layer.name for layer in index.manifest.layers]

    def gradient(example: Window) -> dict[str, Tensor]:
        return oracle.projected(oracle.weight_gradients(model, example, names), index.projections)

    by_id = {e.id: gradient(e) for record in data for e in encoder.training(record)}
    order = [line.split('"')[1] for line in index.path("examples.jsonl").read_text().splitlines()]
    queries = [gradient(encoder.output(output)[0]) for output in outputs]
    truth = oracle.influence_matrix([by_id[i] for i in order], queries, 0.1)
    torch.testing.assert_close(index.row_influence(model, outputs), truth, rtol=1e-6, atol=1e-12)
