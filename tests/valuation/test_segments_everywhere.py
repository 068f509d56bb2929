"""Whatever else an index can do, it does with examples that are parts of windows as with whole ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from credit.errors import ValuationError
from credit.records import PPM, LoggedOutput, Share, TrainingRecord
from credit.valuation import AttributionIndex, Checkpoint, ModuleTask, TensorSample, build_index, load_model
from credit.valuation.explain import explain_output
from credit.valuation.gradients import Gradients
from credit.valuation.hooks import GradientTap
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import choose_layers
from credit.valuation.projection import random_projections
from credit.valuation.revise import update_index, withdraw_provider
from credit.valuation.rows import fold_key
from credit.valuation.tokens import Segment, Window
from tests.models import HIDDEN, hidden_settings, records, save_tiny_model, sentence
from tests.valuation.conftest import FOLDED, LONE, SINGLE
from tests.valuation.engine import example_gradients
from tests.valuation.faults import memory_for

LENGTH = 7
DAMPING = 0.3


@pytest.fixture(scope="module")
def shared_data() -> list[TrainingRecord]:
    """Records of several segments; two groups share one of them."""
    own = [TrainingRecord(f"a{i}", FOLDED, sentence(i, 6 + 6 * i)) for i in range(5)]
    other = [TrainingRecord(f"b{i}", SINGLE, sentence(50 + i, 18)) for i in range(3)]
    parts = (Share(FOLDED, 300_000), Share(LONE, 700_000))
    return [*own, *other, TrainingRecord("s", None, sentence(80, 30), splits=parts)]


def _segments(model: LanguageModel, data: Sequence[TrainingRecord]) -> list[tuple[Window | Segment, tuple[Share, ...]]]:
    encoder = model.encoder(64)
    return [
        (part, record.shares) for record in data for w in encoder.training(record) for part in encoder.cut(w, LENGTH)
    ]


def _projected(model: LanguageModel, examples: Sequence[Window | Segment]) -> Gradients:
    """Projected gradients of examples, whose segments other tests compare with autograd's: for each layer (N, D)."""
    layers = choose_layers(model.module, HIDDEN)
    with GradientTap(model.module, layers.watched, random_projections(layers.shapes, rank=3, seed=0)) as tap:
        return example_gradients(model, tap, examples)


def _influence_by_definition(
    model: LanguageModel,
    data: Sequence[TrainingRecord],
    index: AttributionIndex,
    outputs: Sequence[LoggedOutput],
    weighting: str,
) -> Tensor:
    """Influence of every segment on every output, by a dense inverse: (Q, N) float64."""
    gradients = _projected(model, [part for part, _ in _segments(model, data)])
    queries = index.output_gradients(model, outputs)
    count = len(next(iter(gradients.values())))
    inverses = {}
    for name, g in gradients.items():
        fisher = g.mT @ g / count
        damped = fisher + DAMPING * fisher.diagonal().mean() * torch.eye(len(fisher), dtype=torch.float64)
        inverses[name] = torch.linalg.inv(damped)
    sizes = torch.ones(count, dtype=torch.float64)
    if weighting == "unit":
        sizes = sum(g.square().sum(1) for g in gradients.values()).sqrt()
    if weighting == "relatif":
        sizes = sum(((g @ inverses[name]) * g).sum(1) for name, g in gradients.items()).sqrt()
    total = sum(queries[name] @ inverses[name] @ g.mT for name, g in gradients.items())
    return total / sizes * sizes.mean() / count


@pytest.mark.parametrize("weighting", ["none", "unit", "relatif"])
@pytest.mark.parametrize("rows", [None, 3])
def test_every_weighting_of_segments_is_its_definition_from_rows_and_from_data(
    model, shared_data, outputs, tmp_path, write_limits, weighting, rows
):
    write_limits(shard_bytes=1)  # windows have segments in many shards
    settings = hidden_settings(rank=3, rows_per_group=rows, example_length=LENGTH, weighting=weighting, damping=DAMPING)
    build_index(model, shared_data, tmp_path / "index", settings, name="tiny", tokens_per_batch=60)
    index = AttributionIndex.open(tmp_path / "index")
    truth = _influence_by_definition(model, shared_data, index, outputs, weighting)
    segments = _segments(model, shared_data)
    assert len(segments) > 2 * len(shared_data)
    each = {
        (part.id, share.group): truth[0, column].item() * share.ppm / PPM
        for column, (part, shares) in enumerate(segments)
        for share in shares
    }
    found = explain_output(index, model, outputs[0], records=shared_data, top=10**6)
    assert {(e.id, e.group): pytest.approx(e.influence, rel=1e-6, abs=1e-9) for e in found} == each
    valued = index.value(model, outputs).influence
    for column, group in enumerate(index.groups):
        own = [(n, s.ppm / PPM) for n, (_, shares) in enumerate(segments) for s in shares if s.group == group]
        exact = sum(truth[:, n] * share for n, share in own)
        torch.testing.assert_close(valued[:, column], exact, rtol=1e-6, atol=1e-9)
    folds = {fold_key(part.id) % 3 for part, shares in segments if shares[0].group == FOLDED}
    layout = next(layout for layout in index.manifest.groups if layout.group == FOLDED)
    assert layout.stop - layout.start == (len(folds) if rows else layout.examples), "segments fold one by one"


@pytest.mark.parametrize("weighting", ["none", "unit"])
def test_segments_that_are_shared_join_and_leave_exactly(
    model, shared_data, outputs, tmp_path, write_limits, weighting
):
    write_limits(shard_bytes=1)
    settings = hidden_settings(rank=3, rows_per_group=3, example_length=LENGTH, weighting=weighting)
    before = [record for record in shared_data if all(share.group != LONE for share in record.shares)]
    build_index(model, before, tmp_path / "changed", settings, name="tiny")
    build_index(model, shared_data, tmp_path / "all", settings, name="tiny")
    update_index(tmp_path / "changed", model, shared_data)
    _assert_equal(tmp_path / "changed", tmp_path / "all", model, outputs)
    withdraw_provider(tmp_path / "changed", model, LONE.provider, shared_data)
    build_index(model, before, tmp_path / "before", settings, name="tiny")
    _assert_equal(tmp_path / "changed", tmp_path / "before", model, outputs)
    history = AttributionIndex.open(tmp_path / "changed").manifest.history
    shared = sum(1 for _, shares in _segments(model, shared_data) if len(shares) > 1)
    assert [(step.action, step.examples) for step in history] == [("update", shared), ("withdraw", shared)]


def _assert_equal(one: Path, other: Path, model: LanguageModel, outputs: Sequence[LoggedOutput]) -> None:
    a, b = AttributionIndex.open(one), AttributionIndex.open(other)
    assert a.manifest.inputs.sha256 == b.manifest.inputs.sha256
    assert a.manifest.groups == b.manifest.groups
    ours, truth = a.value(model, outputs), b.value(model, outputs)
    for name in ("influence", "support", "volume"):
        torch.testing.assert_close(getattr(ours, name), getattr(truth, name), rtol=1e-6, atol=1e-9)


def test_checkpoints_hold_the_same_segments_and_influence_is_their_mean(model, shared_data, outputs, tmp_path):
    kind = type(model.module).__name__.removesuffix("LMHeadModel").removesuffix("ForCausalLM").lower()
    other = load_model(save_tiny_model(tmp_path / "other", kind, seed=5), dtype="fp64", device="cpu")
    settings = hidden_settings(rank=3, rows_per_group=3, example_length=LENGTH)
    build_index(
        model, shared_data, tmp_path / "both", settings, name="tiny", checkpoints=[Checkpoint(lambda: other, 3.0)]
    )
    both = AttributionIndex.open(tmp_path / "both")
    both.add_models(other)
    means = 0.0
    for number, (own, weight) in enumerate([(model, 0.25), (other, 0.75)]):
        build_index(own, shared_data, tmp_path / str(number), settings, name="tiny")
        means = means + weight * AttributionIndex.open(tmp_path / str(number)).row_influence(own, outputs)
    torch.testing.assert_close(both.row_influence(model, outputs), means, rtol=1e-9, atol=1e-12)
    found = explain_output(both, model, outputs[0], records=shared_data, top=10**6)
    assert math.fsum(e.influence for e in found) == pytest.approx(float(both.value(model, outputs).influence[0].sum()))
    withdraw_provider(tmp_path / "both", model, SINGLE.provider, shared_data, checkpoints=[other])
    assert all(
        part.manifest.groups == both_now.manifest.groups
        for both_now in [AttributionIndex.open(tmp_path / "both")]
        for _, part in both_now.further
    )


@pytest.mark.parametrize("settings", [hidden_settings(rank=3), replace(hidden_settings(rank=3), curvature="ekfac")])
def test_batches_of_cut_windows_are_split_when_memory_runs_out(model, shared_data, outputs, tmp_path, settings):
    settings = replace(settings, rows_per_group=3, example_length=LENGTH)
    build_index(model, shared_data, tmp_path / "roomy", settings, name="tiny")
    widest = max(w.size for record in shared_data for w in model.encoder(64).training(record))
    with memory_for(model.module, widest, during="backward") as tried:
        build_index(model, shared_data, tmp_path / "tight", settings, name="tiny")
    assert max(tried) > widest
    _assert_equal(tmp_path / "tight", tmp_path / "roomy", model, outputs)


def test_a_segment_that_is_not_finite_is_named_or_left_out_and_those_beside_it_stay(tmp_path, outputs):
    model = load_model(save_tiny_model(tmp_path / "model"), dtype="fp64", device="cpu")
    record = TrainingRecord("bad", FOLDED, sentence(3, 30))
    data = [record, *records({FOLDED: 4, SINGLE: 3})]
    segments = [part for part, _ in _segments(model, [record])]
    last = segments[-1]
    head = model.module.get_output_embeddings()

    seen: list[torch.Tensor] = []

    def remember(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen[:] = args

    def overflow(_module: nn.Module, _args: object, y: Tensor) -> Tensor:
        """Make the logits infinite that predict the record's last token."""
        (tokens,) = seen
        at = (tokens[:, 1:] == last.window.tokens[-1]) & (torch.arange(1, tokens.shape[1]) == last.window.size - 1)
        return torch.where(nn.functional.pad(at, (0, 1))[..., None], torch.inf, y)

    settings = replace(hidden_settings(rank=3), layers=(), example_length=LENGTH, rows_per_group=None)
    watcher = model.module.get_input_embeddings().register_forward_pre_hook(remember)
    breaker = head.register_forward_hook(overflow, prepend=True)
    with pytest.raises(ValuationError, match=r"the gradient of bad\[\d+:\d+\] is not finite .*--non-finite exclude"):
        build_index(model, data, tmp_path / "refused", settings, name="tiny")
    manifest = build_index(model, data, tmp_path / "index", settings, name="tiny", exclude_non_finite=True).manifest
    watcher.remove()
    breaker.remove()
    assert [example.id for example in manifest.excluded] == [last.id]
    index = AttributionIndex.open(tmp_path / "index")
    listed = {e.id for e in explain_output(index, model, outputs[0], top=10**6)}
    assert {part.id for part in segments[:-1]} <= listed
    assert last.id not in listed


def test_a_users_own_samples_are_never_cut(out):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    task = ModuleTask(module, lambda m, x: m(x).square().sum() / 2)
    samples = [TensorSample(f"s{i}", (torch.randn(9, 3).double(),), FOLDED, size=9, predicted=9) for i in range(4)]
    manifest = build_index(
        task, samples, out, replace(hidden_settings(rank=2), layers=(), example_length=2), name="own"
    ).manifest
    assert (manifest.examples, manifest.tokens) == (4, 36)
