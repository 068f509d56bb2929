from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from credit.errors import ValuationError
from credit.records import LoggedOutput, TrainingRecord
from credit.valuation import AttributionIndex, build_index
from credit.valuation.example_store import HeldExamples
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import LayerShape, choose_layers
from credit.valuation.moments import choose_sample, second_moments
from credit.valuation.projection import (
    LayerMoments,
    orthonormal_rows,
    pca_projections,
    random_projections,
)
from credit.valuation.tokens import Encoder, Window
from tests.models import EVERY, HIDDEN, hidden_settings
from tests.valuation import oracle
from tests.valuation.conftest import FOLDED
from tests.valuation.engine import fitted


def _examples(model: LanguageModel, data: Sequence[TrainingRecord]) -> list[Window]:
    encoder = Encoder(model.tokenizer, model.max_length)
    return [example for record in data for example in encoder.training(record)]


def _influence_by_formula(
    model: LanguageModel,
    data: Sequence[TrainingRecord],
    outputs: Sequence[LoggedOutput],
    inner_product: Callable[[str, list[Tensor]], Callable[[Tensor, Tensor], Tensor]],
) -> Tensor:
    """1/N Σ_l inner_product(G_q, G_i) from autograd's gradients: (outputs, examples)."""
    names = list(choose_layers(model.module, HIDDEN).watched)
    encoder = Encoder(model.tokenizer, model.max_length)
    train = [oracle.weight_gradients(model, e, names) for e in _examples(model, data)]
    queries = [oracle.weight_gradients(model, encoder.output(o)[0], names) for o in outputs]
    total = torch.zeros(len(queries), len(train), dtype=torch.float64)
    for name in names:
        ready = inner_product(name, [t[name] for t in train])
        for q, query in enumerate(queries):
            for i, gradient in enumerate(train):
                total[q, i] += ready(query[name], gradient[name]) / len(train)
    return total


def _engine(
    model: LanguageModel, data: Sequence[TrainingRecord], outputs: Sequence[LoggedOutput], out: Path, **settings: Any
) -> Tensor:
    build_index(model, data, out, hidden_settings(rows_per_group=None, sample=10_000, **settings), name="tiny")
    index = AttributionIndex.open(out)
    values = index.row_influence(model, outputs)
    order = {line.split('"')[1]: i for i, line in enumerate((out / "examples.jsonl").read_text().splitlines())}
    return values[:, [order[e.id] for e in _examples(model, data)]]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**40))
def test_random_rows_are_orthonormal_and_a_function_of_their_seed(rank, width, seed):
    rank = min(rank, width)
    rows = orthonormal_rows(rank, width, seed)
    torch.testing.assert_close(rows @ rows.mT, torch.eye(rank, dtype=torch.float64), atol=1e-12, rtol=0)
    assert torch.equal(rows, orthonormal_rows(rank, width, seed))
    if rank < width:
        assert not torch.equal(rows, orthonormal_rows(rank, width, seed + 1))


def test_moments_equal_sums_over_single_examples_without_padding(model, data):
    layers = choose_layers(model.module, EVERY)
    examples = _examples(model, data)
    together = second_moments(model, layers, examples, tokens_per_batch=100).means()
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in layers.watched}
    deltas: dict[str, list[torch.Tensor]] = {name: [] for name in layers.watched}
    handles = []
    for name, module in layers.watched.items():

        def keep(_module: nn.Module, args: tuple[Tensor, ...], y: Tensor, name: str = name) -> None:
            seen[name].append(args[0].detach()[0])
            y.register_hook(lambda dy: deltas[name].append(dy[0]))

        handles.append(module.register_forward_hook(keep))
    for example in examples:
        ids = torch.from_numpy(example.tokens).long()[None]
        log_probs = model.module(input_ids=ids).logits[0].log_softmax(-1)
        (-sum(log_probs[t - 1, ids[0, t]] for t in range(example.start, ids.shape[1]))).backward()
    for handle in handles:
        handle.remove()
    model.module.zero_grad()
    tokens = sum(len(example.tokens) for example in examples)
    for name, moment in together.items():
        torch.testing.assert_close(moment.a, sum(x.mT @ x for x in seen[name]) / tokens, rtol=1e-9, atol=1e-12)
        outer = sum(d.mT @ d for d in deltas[name]) / tokens
        expected = outer.diagonal() if name in layers.heads else outer
        torch.testing.assert_close(moment.b, expected, rtol=1e-9, atol=1e-12)


def test_pca_keeps_the_top_eigenvectors_and_all_when_the_rank_is_the_width():
    a = torch.diag(torch.tensor([1.0, 9.0, 4.0, 0.5])).double()
    moments = {"l": LayerMoments(a, torch.diag(torch.tensor([2.0, 3.0])).double())}
    projection = pca_projections((LayerShape("l", 4, 2),), moments, rank=2, seed=0)["l"]
    expected = torch.tensor([[0.0, 1.0, 0, 0], [0, 0, 1.0, 0]]).double()
    torch.testing.assert_close(projection.p_in, expected)
    assert projection.p_out is None


@pytest.mark.parametrize(("projection", "rank"), [("random", 3), ("pca", 3), ("random", 1000)])
def test_ekfac_equals_an_explicit_kronecker_eigen_computation(model, data, outputs, out, projection, rank):
    layers = choose_layers(model.module, HIDDEN)
    examples = _examples(model, data)
    moments = second_moments(model, layers, examples, tokens_per_batch=500).means()
    plain = fitted(
        model, layers, examples, hidden_settings(rank=rank, projection=projection, curvature="none", sample=10_000)
    )

    def ekfac(name: str, train: Sequence[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        p_in = torch.eye(len(moments[name].a)).double() if plain[name].p_in is None else plain[name].p_in.double()
        p_out = torch.eye(len(moments[name].b)).double() if plain[name].p_out is None else plain[name].p_out.double()
        _, u_in = torch.linalg.eigh(p_in @ moments[name].a @ p_in.mT)
        _, u_out = torch.linalg.eigh(p_out @ moments[name].b @ p_out.mT)

        def rotate(gradient: Tensor) -> Tensor:
            return u_out.mT @ (p_out @ gradient @ p_in.mT) @ u_in

        corrected = sum(rotate(g) ** 2 for g in train) / len(train)
        damped = corrected + 0.1 * corrected.mean()
        return lambda q, g: (rotate(q) / damped * rotate(g)).sum()

    truth = _influence_by_formula(model, data, outputs, ekfac)
    ours = _engine(model, data, outputs, out, rank=rank, projection=projection, curvature="ekfac")
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-9)


def test_dense_fisher_of_fitted_projections_equals_the_dense_definition(model, data, outputs, out):
    settings = hidden_settings(rank=3, projection="pca", sample=10_000)
    layers = choose_layers(model.module, HIDDEN)
    projections = fitted(model, layers, _examples(model, data), settings)
    names = list(layers.watched)
    encoder = Encoder(model.tokenizer, model.max_length)

    def gradient(example: Window) -> dict[str, Tensor]:
        return oracle.projected(oracle.weight_gradients(model, example, names), projections)

    train = [gradient(example) for example in _examples(model, data)]
    queries = [gradient(encoder.output(output)[0]) for output in outputs]
    ours = _engine(model, data, outputs, out, rank=3, projection="pca")
    torch.testing.assert_close(ours, oracle.influence_matrix(train, queries, 0.1), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("curvature", ["fisher", "ekfac"])
def test_another_damping_needs_no_other_index(model, data, outputs, tmp_path, curvature):
    for damping in (0.1, 0.7):
        settings = hidden_settings(rank=3, curvature=curvature, damping=damping)
        build_index(model, data, tmp_path / str(damping), settings, name="tiny")
    changed = AttributionIndex.open(tmp_path / "0.1", damping=0.7).row_influence(model, outputs)
    rebuilt = AttributionIndex.open(tmp_path / "0.7").row_influence(model, outputs)
    torch.testing.assert_close(changed, rebuilt, rtol=1e-9, atol=1e-13)
    assert not torch.allclose(changed, AttributionIndex.open(tmp_path / "0.1").row_influence(model, outputs))


@pytest.mark.parametrize(("dtype", "bound"), [("bf16", 2**-8), ("int8", 0.5 / 127 * (1 + 2**-8))])
def test_stored_rows_err_by_no_more_than_their_format_does(model, data, outputs, tmp_path, dtype, bound):
    for form in ("fp32", dtype):
        settings = hidden_settings(rank=4, rows_dtype=form, rows_per_group=5)
        build_index(model, data, tmp_path / form, settings, name="tiny")
    exact, coarse = (AttributionIndex.open(tmp_path / form) for form in ("fp32", dtype))
    for (layer, rows), (_, stored) in zip(*(next(i.shards(model.device)) for i in (exact, coarse)), strict=True):
        largest = rows.abs().amax(1, keepdim=True)
        assert ((rows - stored).abs() <= bound * largest * 1.001).all(), layer
    truth, ours = (index.value(model, outputs) for index in (exact, coarse))
    folded = exact.groups.index(FOLDED)  # the support of single rows jumps where one crosses the threshold
    for name, columns in (("influence", slice(None)), ("support", [folded])):
        a, b = getattr(ours, name)[:, columns], getattr(truth, name)[:, columns]
        error = (a - b).norm() / b.norm()
        assert error < 0.02, f"{name} of {dtype} rows: relative error {error:.3g}"


def test_layers_are_chosen_by_pattern(model, data, out):
    names = list(choose_layers(model.module, EVERY).watched)
    only_first = choose_layers(model.module, ["*.0.*"])
    assert list(only_first.watched) == [name for name in names if ".0." in name]
    without = choose_layers(model.module, ["!*.0.*"])
    assert list(without.watched) == [name for name in names if ".0." not in name]
    assert any(layer.reason == "left out by --layers" for layer in without.skipped)
    build_index(model, data, out, hidden_settings(rank=2, layers=("*.0.*",)), name="tiny")
    assert [layer.name for layer in AttributionIndex.open(out).manifest.layers] == list(only_first.watched)
    with pytest.raises(ValuationError, match="matches no linear layer"):
        choose_layers(model.module, ["*.mlpp.*"])


def test_the_sample_does_not_depend_on_the_order_of_the_data(model, data):
    examples = _examples(model, data)
    one, two = HeldExamples(examples), HeldExamples(list(reversed(examples)))
    assert choose_sample(one, 5) == choose_sample(two, 5)
    assert len(choose_sample(one, 10_000)) == len(examples)


def test_a_rank_that_is_not_positive_is_refused():
    with pytest.raises(ValuationError, match="rank 0"):
        random_projections((LayerShape("l", 4, 2),), rank=0, seed=0)
