"""Examples that are parts of a window: exact parts of its gradient, whoever shares the batch or the shard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from credit.errors import ValuationError
from credit.records import LoggedOutput, Share, TrainingRecord
from credit.valuation import AttributionIndex, build_index, shards
from credit.valuation.batches import PaddedBatch, by_window, gradient_batches, make_batch, make_cut
from credit.valuation.example_store import HeldExamples
from credit.valuation.explain import explain_output
from credit.valuation.gradients import WindowCut
from credit.valuation.hooks import GradientTap
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import choose_layers
from credit.valuation.moments import choose_sample
from credit.valuation.projection import random_projections
from credit.valuation.revise import update_index, withdraw_provider
from credit.valuation.rows import ExampleColumns, lay_out_rows
from credit.valuation.tokens import Encoder, Segment, Window, cut_window, window_of
from tests.models import EVERY, HIDDEN, hidden_settings, sentence
from tests.valuation import oracle
from tests.valuation.conftest import FOLDED, LONE, SINGLE, make_output
from tests.valuation.engine import example_gradients
from tests.valuation.faults import stopped_often

LENGTH = 7


@pytest.fixture(scope="module")
def long_data() -> list[TrainingRecord]:
    """Records of one to many segments, one of them with a prompt longer than a segment."""
    texts = [TrainingRecord(f"a{i}", FOLDED, sentence(i, 4 + 9 * i)) for i in range(6)]
    others = [TrainingRecord(f"b{i}", SINGLE, sentence(50 + i, 8 + 5 * i)) for i in range(3)]
    asked = TrainingRecord("c0", LONE, sentence(70, 20), prompt=sentence(71, 25))
    return [*texts, *others, asked]


def _windows(model: LanguageModel, data: Sequence[TrainingRecord]) -> tuple[Encoder, list[Window]]:
    encoder = Encoder(model.tokenizer, model.max_length)
    return encoder, [window for record in data for window in encoder.training(record)]


def _segments(model: LanguageModel, data: Sequence[TrainingRecord], length: int = LENGTH) -> list[Window | Segment]:
    encoder, windows = _windows(model, data)
    return [example for window in windows for example in encoder.cut(window, length)]


@given(
    start=st.integers(1, 30),
    predicted=st.integers(1, 90),
    length=st.integers(1, 40),
)
def test_segments_predict_every_token_once_and_share_all_positions(start, predicted, length):
    window = Window("w", np.arange(start + predicted, dtype=np.int32), start)
    parts = cut_window(window, length)
    if len(parts) == 1:
        assert parts[0] is window
        assert (window.size - 2) // length == (start - 1) // length, "a window left whole lies in one cell"
        return
    assert [t for part in parts for t in range(part.start, part.stop)] == list(range(start, window.size))
    assert [p for part in parts for p in part.positions] == list(range(window.size - 1))
    assert sum(part.size for part in parts) == window.size
    assert all(0 < part.predicted <= length for part in parts)
    assert len({part.id for part in parts}) == len({part.digest() for part in parts}) == len(parts)


@pytest.mark.parametrize("patterns", [HIDDEN, EVERY, ()], ids=["hidden", "all", "head"])
def test_segments_of_a_mixed_batch_sum_to_the_gradients_of_their_windows(model, long_data, patterns):
    layers = choose_layers(model.module, patterns)
    projections = random_projections(layers.shapes, rank=4, seed=1)
    _, windows = _windows(model, long_data)
    segments = _segments(model, long_data)
    assert len(segments) > 2 * len(windows)
    assert any(isinstance(example, Window) for example in segments), "some windows stay whole"
    with GradientTap(model.module, layers.watched, projections) as tap:
        ours = example_gradients(model, tap, segments)
        whole = example_gradients(model, tap, windows)
    for name, rows in whole.items():
        for number, reading in enumerate(by_window(segments)):
            torch.testing.assert_close(ours[name][reading.places].sum(0), rows[number], rtol=1e-9, atol=1e-11)


def test_in_the_head_a_segment_has_the_gradient_of_its_own_loss(model, long_data):
    layers = choose_layers(model.module, ())
    projections = random_projections(layers.shapes, rank=5, seed=2)
    segments = _segments(model, long_data)
    with GradientTap(model.module, layers.watched, projections) as tap:
        ours = example_gradients(model, tap, segments)["lm_head"]
    untied = oracle.untie(model)
    for row, example in enumerate(segments):
        alone = example
        if isinstance(example, Segment):  # read by itself, with nothing after it
            alone = Window("alone", example.window.tokens[: example.stop], example.start)
        exact = oracle.projected(oracle.weight_gradients(untied, alone, ["lm_head"]), projections)["lm_head"]
        torch.testing.assert_close(ours[row], exact, rtol=1e-8, atol=1e-10)


def test_below_the_head_a_segment_has_what_passes_through_its_positions(model, long_data):
    layers = choose_layers(model.module, HIDDEN)
    projections = random_projections(layers.shapes, rank=1000, seed=2)
    segments = [e for e in _segments(model, long_data) if isinstance(e, Segment)]
    window = max((e.window for e in segments), key=lambda w: w.size)
    own = [e for e in segments if e.window is window]
    with GradientTap(model.module, layers.watched, projections) as tap:
        ours = example_gradients(model, tap, own)
    name, module = list(layers.watched.items())[-1]
    seen: dict[str, torch.Tensor] = {}

    def hook(_module: nn.Module, args: object, y: Tensor) -> None:
        seen["x"], seen["y"] = args[0].detach(), y
        y.retain_grad()

    handle = module.register_forward_hook(hook)
    loss = model.loss(model_batch(window))
    loss.backward()
    handle.remove()
    model.module.zero_grad()
    for row, example in enumerate(own):
        terms = [torch.outer(seen["y"].grad[0, t], seen["x"][0, t]) for t in example.positions]
        torch.testing.assert_close(ours[name][row], sum(terms).flatten(), rtol=1e-8, atol=1e-11)


def model_batch(window: Window) -> PaddedBatch:
    return make_batch([window])


def test_batches_and_absent_neighbours_change_nothing(model, long_data):
    layers = choose_layers(model.module, EVERY)
    projections = random_projections(layers.shapes, rank=4, seed=1)
    segments = _segments(model, long_data)
    some = segments[::3]
    with GradientTap(model.module, layers.watched, projections) as tap:
        together = example_gradients(model, tap, segments)
        for budget in (1, 90, 10_000):
            for chosen in (segments, some):
                seen = []
                for places, gradients in gradient_batches(model, tap, chosen, budget):
                    seen += places
                    at = [segments.index(chosen[p]) for p in places]
                    for name, rows in gradients.items():
                        torch.testing.assert_close(rows, together[name][at], rtol=1e-9, atol=1e-11)
                assert sorted(seen) == list(range(len(chosen)))


@given(
    groups=st.lists(st.integers(1, 40), max_size=12),
    most=st.integers(1, 50),
)
def test_shards_end_with_groups_that_fit_into_them(groups, most):
    stops = np.cumsum(groups).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 4 * 10 * most)
        plan = list(shards.plan_shards(stops, 10))
    assert [low for low, _ in plan] + stops[-1:] == [0] * bool(groups) + [high for _, high in plan]
    assert all(0 < high - low <= most for low, high in plan)
    for start, stop in zip([0, *stops], stops, strict=False):
        if stop - start <= most:
            assert any(low <= start and stop <= high for low, high in plan), (start, stop, plan)


def test_single_rows_of_a_window_lie_together_so_that_it_is_read_once_a_shard(model, long_data):
    segments = _segments(model, long_data)
    whole = (Share(FOLDED),)
    columns = ExampleColumns.of([e.id for e in segments], [whole] * len(segments), [1] * len(segments))
    layout = lay_out_rows(columns, None)
    for reading in by_window(segments):
        rows = sorted(int(layout.rows_of(place)[0]) for place in reading.places)
        assert rows == list(range(rows[0], rows[0] + len(rows)))
        assert window_of(segments[reading.places[0]].id) == reading.window.id


@pytest.mark.parametrize("curvature", ["fisher", "ekfac"])
def test_an_index_of_segments_equals_itself_however_it_is_sharded_or_stopped(
    model, long_data, outputs, tmp_path, write_limits, curvature
):
    settings = hidden_settings(rank=3, rows_per_group=4, example_length=LENGTH, curvature=curvature)
    build_index(model, long_data, tmp_path / "one", settings, name="tiny")
    write_limits(shard_bytes=1, waiting_bytes=0)
    _, steps = stopped_often(
        lambda stop: build_index(model, long_data, tmp_path / "many", settings, name="tiny", progress=stop),
        most=60,
        every=4,
    )
    assert all(done <= total for _, done, total in steps)
    one, many = AttributionIndex.open(tmp_path / "one"), AttributionIndex.open(tmp_path / "many")
    assert len(many.manifest.shards) > len(one.manifest.shards)
    assert one.manifest.examples == many.manifest.examples == len(_segments(model, long_data))
    ours, theirs = one.value(model, outputs), many.value(model, outputs)
    torch.testing.assert_close(ours.influence, theirs.influence, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(ours.support, theirs.support, rtol=1e-6, atol=1e-9)


def test_with_the_fisher_of_single_rows_influence_is_that_of_an_explicit_inverse(model, long_data, outputs, out):
    settings = hidden_settings(rank=3, rows_per_group=None, example_length=LENGTH, damping=0.3)
    build_index(model, long_data, out, settings, name="tiny")
    index = AttributionIndex.open(out)
    segments = _segments(model, long_data)
    layers = choose_layers(model.module, HIDDEN)
    projections = random_projections(layers.shapes, rank=3, seed=0)
    with GradientTap(model.module, layers.watched, projections) as tap:
        rows = example_gradients(model, tap, segments)
    queries = index.output_gradients(model, outputs)
    total = torch.zeros(len(outputs), len(segments), dtype=torch.float64)
    for name, g in rows.items():
        fisher = g.mT @ g / len(g)
        damped = fisher + 0.3 * fisher.diagonal().mean() * torch.eye(len(fisher), dtype=torch.float64)
        total += queries[name] @ torch.linalg.inv(damped) @ g.mT / len(g)
    top = {e.id: e.influence for e in explain_output(index, model, outputs[0], top=10_000)}
    assert set(top) == {example.id for example in segments}
    for column, example in enumerate(segments):
        assert top[example.id] == pytest.approx(float(total[0, column]), rel=1e-6, abs=1e-10)


def test_update_and_withdraw_of_segments_equal_a_rebuild(model, long_data, outputs, tmp_path):
    settings = hidden_settings(rank=3, rows_per_group=4, example_length=LENGTH)
    half = [record for record in long_data if record.group != SINGLE]
    build_index(model, half, tmp_path / "changed", settings, name="tiny")
    update_index(tmp_path / "changed", model, [r for r in long_data if r.group == SINGLE])
    build_index(model, long_data, tmp_path / "all", settings, name="tiny")
    _same(tmp_path / "changed", tmp_path / "all", model, outputs)
    withdraw_provider(tmp_path / "changed", model, SINGLE.provider, long_data)
    build_index(model, half, tmp_path / "half", settings, name="tiny")
    _same(tmp_path / "changed", tmp_path / "half", model, outputs)


def _same(one: Path, other: Path, model: LanguageModel, outputs: Sequence[LoggedOutput]) -> None:
    a, b = AttributionIndex.open(one), AttributionIndex.open(other)
    assert a.manifest.data_sha256 == b.manifest.data_sha256
    torch.testing.assert_close(a.value(model, outputs).effect(), b.value(model, outputs).effect(), rtol=1e-6, atol=1e-9)


def test_a_folded_groups_segments_are_explained_from_the_data(model, long_data, out):
    settings = hidden_settings(rank=3, rows_per_group=2, example_length=LENGTH)
    build_index(model, long_data, out, settings, name="tiny")
    index = AttributionIndex.open(out)
    output = make_output(9, sentence(70, 5), sentence(71, 9))
    found = explain_output(index, model, output, records=long_data, top=10_000)
    assert {e.id for e in found} == {example.id for example in _segments(model, long_data)}
    total = index.value(model, [output]).influence[0].sum().item()
    assert sum(e.influence for e in found) == pytest.approx(total, rel=1e-6)


def test_a_sample_takes_whole_windows(model, long_data):
    segments = _segments(model, long_data)
    for size in (1, 5, 12, 10_000):
        chosen = choose_sample(HeldExamples(segments), size)
        ids = {example.id for example in chosen}
        assert len(chosen) <= size or len(by_window(chosen)) == 1
        for reading in by_window(segments):
            inside = {segments[place].id for place in reading.places} & ids
            assert len(inside) in (0, len(reading.places))
        assert {e.id for e in choose_sample(HeldExamples(segments[::-1]), size)} == ids


def test_a_layer_that_sees_other_positions_than_tokens_is_named(model, long_data):
    layers = choose_layers(model.module, HIDDEN)
    projections = random_projections(layers.shapes, rank=2, seed=0)
    segments = _segments(model, long_data)
    window = by_window(segments)[3].window
    with GradientTap(model.module, layers.watched, projections) as tap:
        cut = build_cut(segments, window)
        with pytest.raises(ValuationError, match=r"layer .* sees \d+ positions .*--example-length none"):
            tap.collect(lambda: model.loss(model_batch(Window("w", window.tokens[:-1], window.start))), 1, cut)


def build_cut(segments: Sequence[Segment], window: Window) -> WindowCut | None:
    return make_cut([r for r in by_window(segments) if r.window is window], segments, torch.device("cpu"))


def test_examples_of_no_length_are_refused(model, long_data, out):
    with pytest.raises(ValuationError, match="examples of 0 tokens"):
        build_index(model, long_data, out, hidden_settings(example_length=0), name="tiny")
