"""The output head, which is what an index watches by default: chosen, hashed, and never followed further down."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from credit.records import TrainingRecord
from credit.valuation import AttributionIndex, IndexSettings, build_index
from credit.valuation.hooks import GradientTap
from credit.valuation.influence import project, projected_gradient
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import LayerShape, choose_layers
from credit.valuation.probe import stand_in_projections
from credit.valuation.projection import (
    VOCABULARY_BUCKETS,
    Hashing,
    LayerRank,
    random_projections,
    resolve_ranks,
    vocabulary_hashing,
)
from credit.valuation.projection import SideSpec as Side
from credit.valuation.requirements import build_needs
from credit.valuation.tokens import Window
from tests.models import EVERY
from tests.valuation import oracle
from tests.valuation.engine import example_gradients


def _examples(model: LanguageModel, records: Sequence[TrainingRecord]) -> list[Window]:
    encoder = model.encoder(model.max_length)
    return [example for record in records for example in encoder.training(record)]


def test_the_head_is_watched_alone_by_default_and_all_layers_of_a_model_without_one(model):
    chosen = choose_layers(model.module)
    assert list(chosen.watched) == ["lm_head"]
    assert chosen.watched["lm_head"] is model.module.get_output_embeddings()
    assert chosen.heads == {"lm_head"}
    assert choose_layers(model.module, EVERY).heads == {"lm_head"}
    mlp = choose_layers(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    assert list(mlp.watched) == ["0", "2"]
    assert not mlp.heads


def test_a_tied_head_has_its_share_of_the_parameters_once(model):
    module = copy.deepcopy(model.module)  # the model is that of other tests too
    module.get_output_embeddings().weight = module.get_input_embeddings().weight
    chosen = choose_layers(module)
    total = sum(parameter.numel() for parameter in module.parameters())
    head = module.get_input_embeddings().weight.numel() / total
    assert sum(layer.share for layer in chosen.skipped) == pytest.approx(1 - head)


def test_no_gradient_is_taken_below_the_head(model, data):
    layers = choose_layers(model.module)
    seen = []
    below = [m for name, m in model.module.named_modules() if isinstance(m, nn.LayerNorm) or "norm" in name]
    handles = [m.register_forward_hook(lambda _m, _x, y: seen.append(y.requires_grad)) for m in below]
    with GradientTap(model.module, layers.watched, random_projections(layers.shapes, rank=3, seed=0)) as tap:
        example_gradients(model, tap, _examples(model, data)[:3])
    for handle in handles:
        handle.remove()
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("rule", ["lm_head:in=5,out=40", "lm_head:in=99,out=9999"], ids=["hashed", "full"])
def test_influence_of_a_head_under_ekfac_is_its_definition(model, data, outputs, out, rule):
    settings = IndexSettings(ranks=(rule,), projection="random", curvature="ekfac", rows_per_group=None, damping=0.7)
    build_index(model, data, out, settings, name="tiny")
    index = AttributionIndex.open(out)
    examples = _examples(model, data)

    def gradients(some: Window) -> Tensor:
        own = oracle.weight_gradients(oracle.untie(model), some, ["lm_head"])
        return oracle.projected(own, index.projections)["lm_head"]

    train = torch.stack([gradients(example) for example in examples])
    queries = torch.stack([sum(gradients(e) for e in model.encoder(64).output(output)) for output in outputs])
    mean = train.square().mean(0)
    truth = (queries / (mean + 0.7 * mean.mean())) @ train.mT / len(examples)
    ours = index.row_influence(model, outputs)
    assert ours.shape == truth.shape
    # Rows lie by group and fold key: compare as the sorted influences of every output.
    torch.testing.assert_close(ours.sort(1).values, truth.sort(1).values, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("tokens", "rank"), [(3, 7), (7, 3)], ids=["hashed before", "hashed after"])
def test_a_hashed_gradient_is_the_dense_one_with_its_rows_added(tokens, rank):
    torch.manual_seed(1)
    x, dy = torch.randn(2, tokens, rank).double(), torch.randn(2, tokens, 11).double()
    hashing = vocabulary_hashing(Side(11, 4, 3)).to(x.device, x.dtype)
    expected = torch.einsum("so,nto,ntr->nsr", oracle.dense(hashing, 11), dy, x)
    torch.testing.assert_close(projected_gradient(x, dy, None, hashing), expected)
    torch.testing.assert_close(project(dy, hashing), dy @ oracle.dense(hashing, 11).mT)


def test_hashing_keeps_inner_products_in_expectation():
    torch.manual_seed(2)
    a, b = torch.randn(2, 30).double()
    products = []
    for seed in range(4000):
        hashing = vocabulary_hashing(Side(30, 8, seed)).to(a.device, a.dtype)
        products.append(float(hashing.sum(a, 0) @ hashing.sum(b, 0)))
    values = torch.tensor(products)
    assert abs(values.mean() - a @ b) < 4 * values.std() / len(values) ** 0.5
    assert vocabulary_hashing(Side(30, 30, 0)) is None, "with a bucket for each token there is nothing to mix"


def test_ranks_and_needs_of_a_head_do_not_grow_with_the_square_of_the_vocabulary():
    head = LayerShape("lm_head", 64, 100_000, is_head=True)
    assert resolve_ranks([head], 16, ())["lm_head"] == LayerRank(16, VOCABULARY_BUCKETS)
    assert resolve_ranks([head], 16, ("lm_head:out=50",))["lm_head"] == LayerRank(16, 50)
    needs = build_needs(1000, 100, [head], IndexSettings(rank=16, curvature="ekfac"), 2**20)
    assert needs.fitting_bytes < 10 * 100_000 * 4
    assert needs.gradient == 16 * VOCABULARY_BUCKETS


def test_a_probe_makes_no_dense_projection_of_a_vocabulary(model):
    layers = choose_layers(model.module)
    ranks = {"lm_head": LayerRank(3, 40)}
    stand_in = stand_in_projections(layers, ranks, keeps_identities=False)["lm_head"]
    assert isinstance(stand_in.p_out, Hashing)
    assert stand_in.p_out.width == 40
