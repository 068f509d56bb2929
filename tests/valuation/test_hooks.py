from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from credit.errors import ValuationError
from credit.records import TrainingRecord
from credit.valuation.batches import make_batch
from credit.valuation.hooks import GradientTap
from credit.valuation.language_model import LanguageModel, load_model
from credit.valuation.layers import choose_layers
from credit.valuation.projection import random_projections
from credit.valuation.tokens import Encoder, Window
from tests.models import EVERY, HIDDEN, save_tiny_model
from tests.valuation import oracle
from tests.valuation.engine import example_gradients


def _examples(model: LanguageModel, data: Sequence[TrainingRecord]) -> list[Window]:
    encoder = Encoder(model.tokenizer, model.max_length)
    return [example for record in data for example in encoder.training(record)]


@pytest.mark.parametrize("rank", [3, 1000], ids=["projected", "identity"])
@pytest.mark.parametrize("patterns", [HIDDEN, EVERY, ()], ids=["hidden", "all", "head"])
def test_padded_batch_gradients_equal_autograd_one_example_at_a_time(model, data, rank, patterns):
    layers = choose_layers(model.module, patterns)
    projections = random_projections(layers.shapes, rank=rank, seed=1)
    examples = _examples(model, data)[:7]
    assert len({len(e.tokens) for e in examples}) > 3, "lengths must differ, or padding is not tested"
    with GradientTap(model.module, layers.watched, projections) as tap:
        ours = example_gradients(model, tap, examples)
    for row, example in enumerate(examples):
        # With tied embeddings autograd's head gradient also holds the embedding's part, so untie for the oracle.
        exact = oracle.projected(
            oracle.weight_gradients(oracle.untie(model), example, list(layers.watched)), projections
        )
        for name, gradient in exact.items():
            torch.testing.assert_close(
                ours[name][row], gradient, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("patterns", [HIDDEN, ()], ids=["hidden", "head"])
def test_float16_is_as_near_to_float64_as_its_rounding_allows(tmp_path, data, patterns):
    folder = save_tiny_model(tmp_path / "model")
    half = load_model(folder, dtype="fp16", device="cpu")
    exact = load_model(folder, dtype="fp64", device="cpu")
    exact.module.load_state_dict(half.module.state_dict())  # the same weights, and exact sums
    layers = choose_layers(half.module, patterns)
    projections = random_projections(layers.shapes, rank=3, seed=1)
    found = []
    for model in (half, exact):
        watched = choose_layers(model.module, patterns).watched
        with GradientTap(model.module, watched, projections) as tap:
            found.append(example_gradients(model, tap, _examples(model, data)[:5]))
    for name, rows in found[0].items():
        assert rows.dtype == torch.float32
        error = (rows.double() - found[1][name]).norm() / found[1][name].norm()
        assert error < 5e-3, f"{name}: {error}"


def test_gradients_too_small_for_float16_are_kept_by_the_scale_of_the_loss():
    layer = nn.Linear(4, 2, dtype=torch.float16)
    projections = random_projections(choose_layers(nn.Sequential(layer)).shapes, rank=4, seed=0)
    x = torch.ones(1, 3, 4, dtype=torch.float16)
    with GradientTap(nn.Sequential(layer), {"0": layer}, projections) as tap:
        ours = tap.collect(lambda: layer(x).float().sum() * 2.0**-26, 1)["0"]
    torch.testing.assert_close(ours, torch.full((1, 2, 4), 3 * 2.0**-26))


def test_flags_hooks_and_modes_are_restored_also_when_the_loss_fails(model):
    layers = choose_layers(model.module, HIDDEN)
    projections = random_projections(layers.shapes, rank=2, seed=0)
    parameters = list(model.module.parameters())
    parameters[0].requires_grad_(False)
    model.module.train()
    before = [p.requires_grad for p in parameters]
    tap = GradientTap(model.module, layers.watched, projections)

    def fail() -> torch.Tensor:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"), tap:  # noqa: PT012  # the state inside is the point
        assert not any(p.requires_grad for p in parameters)
        assert not model.module.training
        tap.collect(fail, 1)
    assert [p.requires_grad for p in parameters] == before
    assert model.module.training
    assert all(not m._forward_hooks for m in model.module.modules())
    parameters[0].requires_grad_(True)
    model.module.eval()


def test_no_weight_gradient_is_formed_and_backward_stops_below_the_lowest_watched_layer(model, data):
    layers = choose_layers(model.module, HIDDEN)
    last = {name: m for name, m in layers.watched.items() if ".1." in name}
    projections = random_projections(layers.shapes, rank=2, seed=0)
    reached: list[str] = []
    first_block = next(m for name, m in model.module.named_modules() if name.endswith(".0"))
    first_block.register_forward_hook(
        lambda m, a, y: reached.append(str((y[0] if isinstance(y, tuple) else y).requires_grad))
    )
    try:
        with GradientTap(model.module, last, projections) as tap:
            batch = make_batch(_examples(model, data)[:2])
            tap.collect(lambda: model.loss(batch), 2)
    finally:
        first_block._forward_hooks.clear()
    assert reached == ["False"], "the graph reaches below the lowest watched layer"
    assert all(p.grad is None for p in model.module.parameters())


def test_a_layer_used_twice_has_the_sum_of_its_uses():
    torch.manual_seed(0)
    layer = nn.Linear(4, 4, dtype=torch.float64)
    projections = random_projections(choose_layers(nn.Sequential(layer)).shapes, rank=9, seed=0)
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    model = nn.Sequential(layer)
    with GradientTap(model, {"0": layer}, projections) as tap:
        ours = tap.collect(lambda: layer(layer(x)).sin().sum(), 3)["0"]
    for i in range(3):
        layer.weight.grad = None
        layer(layer(x[i])).sin().sum().backward()
        torch.testing.assert_close(ours[i], layer.weight.grad)


def test_a_layer_that_mixes_examples_is_refused():
    layer = nn.Linear(4, 2)
    projections = random_projections(choose_layers(nn.Sequential(layer)).shapes, rank=2, seed=0)
    with (
        GradientTap(nn.Sequential(layer), {"0": layer}, projections) as tap,
        pytest.raises(ValuationError, match="examples cannot be told apart"),
    ):
        tap.collect(lambda: layer(torch.ones(6, 4)).sum(), 3)


def test_a_layer_outside_the_loss_is_named():
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "idle": nn.Linear(2, 2)})
    layers = choose_layers(model)
    projections = random_projections(layers.shapes, rank=2, seed=0)
    with (
        GradientTap(model, layers.watched, projections) as tap,
        pytest.raises(ValuationError, match="idle took no part"),
    ):
        tap.collect(lambda: model["used"](torch.ones(1, 1, 2)).sum(), 1)
