"""Layers that see the same inputs: what is made of these is made once, and is what each would make alone."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from credit.records import Group
from credit.valuation import ModuleTask, TensorSample
from credit.valuation.hooks import GradientTap
from credit.valuation.influence import project
from credit.valuation.language_model import load_model
from credit.valuation.layers import choose_layers
from credit.valuation.moments import second_moments
from credit.valuation.projection import (
    LayerProjection,
    Side,
    projections_from_tensors,
    projections_to_tensors,
    random_projections,
    without_copies,
)
from credit.valuation.tokens import Encoder
from tests.models import HIDDEN, hidden_settings, save_tiny_model
from tests.valuation.engine import fitted

READERS = ("q", "k", "v")
USES = st.lists(st.tuples(st.sampled_from(READERS), st.integers(0, 1)), min_size=1, max_size=6)


class Plans(nn.Module):
    """Three layers, each used as a plan says: in which order, on which of two inputs, how often, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        for name in READERS:
            layer = nn.Linear(4, 3, bias=False, dtype=torch.float64)
            layer.weight.data = torch.randn(3, 4, generator=generator, dtype=torch.float64)
            setattr(self, name, layer)
        self.seen: dict[str, list[torch.Tensor]] = {}

    def forward(self, x: Tensor, plan: Tensor) -> Tensor:
        inputs = (x, x.flip(1))
        total = 0.0
        for name, which in plan:
            self.seen.setdefault(name, []).append(inputs[which])
            total = total + getattr(self, name)(inputs[which]).tanh().square().sum()
        return total


def _samples(plans: Sequence[Sequence[int]]) -> list[TensorSample]:
    """One for each plan."""
    generator = torch.Generator().manual_seed(len(plans))
    x = [torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in plans]
    return [TensorSample(f"s{i}", (values, torch.tensor(i)), Group("ann")) for i, values in enumerate(x)]


@given(st.lists(USES, min_size=1, max_size=4))
def test_moments_are_those_of_every_use_of_each_layer(plans):
    plans = [*plans, [(name, 0) for name in READERS]]  # the last one uses all of them
    module = Plans()
    task = ModuleTask(module, lambda m, x, number: m(x, plans[int(number)]))
    samples = _samples(plans)
    moments = second_moments(task, choose_layers(module), samples, tokens_per_batch=1).means()
    seen = {name: torch.cat([x.flatten(0, 1) for x in module.seen[name]]) for name in READERS}
    for name, x in seen.items():
        torch.testing.assert_close(moments[name].a, x.mT @ x / len(x))


@pytest.mark.parametrize("alike", [True, False])
@given(plan=USES)
def test_gradients_are_those_of_every_use_of_each_layer(alike, plan):
    plan = [*plan, *((name, 0) for name in READERS)]
    module, (sample,) = Plans(), _samples([plan])
    layers = choose_layers(module)
    projections = random_projections(layers.shapes, rank=2, seed=5)
    if alike:
        one = projections["q"].p_in
        projections = {name: LayerProjection(one.clone(), p.p_out) for name, p in projections.items()}
    x = sample.tensors[0][None]
    with GradientTap(module, layers.watched, projections) as tap:
        ours = tap.collect(lambda: module(x, plan), 1)
    for name in READERS:
        (gradient,) = torch.autograd.grad(module(x, plan), getattr(module, name).weight)
        p = projections[name]
        torch.testing.assert_close(ours[name][0], p.p_out.double() @ gradient @ p.p_in.double().mT)


@pytest.mark.parametrize(("projection", "curvature"), [("random", "none"), ("pca", "fisher"), ("pca", "ekfac")])
def test_a_llama_projects_what_several_layers_see_once(tmp_path, monkeypatch, data, projection, curvature):
    model = load_model(save_tiny_model(tmp_path / "llama", "llama"), dtype="fp32", device="cpu")
    layers = choose_layers(model.module, HIDDEN)
    encoder = Encoder(model.tokenizer, model.max_length)
    examples = [example for record in data for example in encoder.training(record)]
    settings = hidden_settings(rank=4, projection=projection, curvature=curvature)
    made = fitted(model, layers, examples, settings)
    stored = projections_from_tensors(tuple(made), projections_to_tensors(made))
    seen_alike = {"q": "attention", "k": "attention", "v": "attention", "gate": "mlp", "up": "mlp"}

    def reads(name: str) -> str:
        block, own = name.split(".")[2], name.rsplit(".", maxsplit=1)[-1].removesuffix("_proj")
        return f"{block}/{seen_alike.get(own, own)}"

    sides = {name: id(p.p_in) for name, p in without_copies(stored).items()}
    assert len({reads(name) for name in sides}) == 4 * len(sides) // 7
    if projection == "pca":
        assert all((sides[a] == sides[b]) == (reads(a) == reads(b)) for a in sides for b in sides)

    projected: list[int] = []

    def counted(values: Tensor, side: Side) -> Tensor:
        if side is not None:
            projected.append(values.shape[-1])
        return project(values, side)

    monkeypatch.setattr("credit.valuation.hooks.project", counted)
    monkeypatch.setattr("credit.valuation.influence.project", counted)
    with GradientTap(model.module, layers.watched, stored) as tap:
        batch = model.batch(examples[:3])
        ours = tap.collect(batch.loss, batch.size)
        assert len(projected) == len(sides) + 4 * len(sides) // 7  # output gradients, and inputs
    for name, layer in layers.watched.items():  # each layer alone has nobody to share with
        with GradientTap(model.module, {name: layer}, stored) as tap:
            torch.testing.assert_close(tap.collect(batch.loss, batch.size)[name], ours[name], rtol=1e-5, atol=1e-6)
