"""Units are pure functions: their order, repetition and interruption, and the moment of a merge, change no byte."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from safetensors.torch import load_file
from torch import Tensor

from credit.engines import Engine
from credit.records import PPM, Share, TrainingRecord
from credit.valuation import AttributionIndex, build_index, change, passes, read_manifest, units
from credit.valuation.batches import gradient_batches
from credit.valuation.example_store import HeldExamples
from credit.valuation.hooks import GradientTap
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import choose_layers
from credit.valuation.moments import MomentSums, choose_sample, sample_units, second_moments
from credit.valuation.rows import Destinations, join_shards
from credit.valuation.shards import plan_shards
from credit.valuation.task import AnyExample, Task
from credit.valuation.unit_files import UnitFolder, UnitRecord, add_up, is_done
from credit.valuation.units import GradientJob, MomentJob, UnitTask, run_units
from tests.models import EVERY, hidden_settings
from tests.valuation.conftest import FOLDED, SINGLE
from tests.valuation.faults import poisoned

SETTINGS = {
    "fisher": hidden_settings(rank=2, rows_per_group=4, layers=("*.0.*",)),
    "relatif": hidden_settings(rank=2, rows_per_group=4, weighting="relatif", curvature="ekfac", layers=("*.0.*",)),
    "fitted": hidden_settings(rank=2, rows_per_group=4, projection="pca", curvature="ekfac", layers=("*.0.*",)),
}
Job = MomentJob | GradientJob


@pytest.fixture(autouse=True)
def _many_units(write_limits: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    write_limits(shard_bytes=1)
    monkeypatch.setattr(passes, "FITTING_EXAMPLES", 2)


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _built(model: LanguageModel, data: Sequence[TrainingRecord], folder: Path, kind: str) -> dict[str, bytes]:
    build_index(model, data, folder, SETTINGS[kind], name="tiny", exclude_non_finite=True)
    return _content(folder)


@pytest.mark.parametrize("kind", SETTINGS)
def test_order_repetition_and_merges_of_units_change_no_byte(model, data, tmp_path, monkeypatch, write_limits, kind):
    whole = _built(model, data, tmp_path / "whole", kind)
    rng = random.Random(kind)
    seen: list[int] = []

    def shuffled(job: Job, tasks: Sequence[UnitTask], _engine: Engine) -> Iterator[tuple[int, UnitRecord]]:
        """Do units in any order, some of them twice, as workers do that came back from the dead."""
        work = job.open()
        order = rng.sample(range(len(tasks)), len(tasks))
        for position in order:
            if rng.random() < 0.3:
                work(tasks[position])
            yield position, work(tasks[position])
        seen.append(len(tasks))

    monkeypatch.setattr(passes, "run_units", shuffled)
    for number, waiting in enumerate([0, 3000, 10**9]):
        write_limits(waiting_bytes=waiting)
        assert _built(model, data, tmp_path / str(number), kind) == whole, f"merged at {waiting} bytes"
    assert min(seen) > 4, f"units of the passes: {seen}"


@pytest.mark.parametrize("joined", [False, True], ids=["units", "shards of a unit"])
@pytest.mark.parametrize("alone", [False, True])
def test_an_example_that_one_of_its_units_leaves_out_is_left_out_by_all(
    model, data, tmp_path, monkeypatch, alone, joined
):
    """Rounding can make a gradient infinite in one unit's batches and not in another's; here, where it is alone."""
    odd = replace(data[0], group=None, splits=(Share(FOLDED, PPM // 2), Share(SINGLE, PPM // 2)))
    rest = [record for record in data[1:] if record.group != SINGLE]
    rest += [record for record in data if record.group == SINGLE][:3]  # with the odd one, still a row for each

    def spoiled(task: Task, tap: GradientTap, examples: Sequence[AnyExample], tokens: int | None, *, excluded: Any):
        for chosen, gradients in gradient_batches(task, tap, examples, tokens, excluded=excluded):
            bad = [at for at in chosen if examples[at].id == odd.id and (len(examples) == 1) == alone]
            excluded.extend(bad)
            kept = [place for place, at in enumerate(chosen) if at not in bad]
            if kept:
                yield [chosen[place] for place in kept], gradients.rows(kept)

    if joined:
        monkeypatch.setattr(change, "SUM_BYTES", 1)
    _built(model, rest, tmp_path / "truth", "fisher")
    monkeypatch.setattr(units, "gradient_batches", spoiled)
    _built(model, [odd, *rest], tmp_path / "found", "fisher")
    assert [example.id for example in read_manifest(tmp_path / "found").excluded] == [odd.id]
    ours, truth = (_numbers(AttributionIndex.open(tmp_path / name)) for name in ("found", "truth"))
    assert ours.keys() == truth.keys()
    for name, values in truth.items():
        torch.testing.assert_close(ours[name], values)


def _numbers(index: AttributionIndex) -> dict[str, Tensor]:
    """Rows of an index, all layers side by side, and its curvature's sums."""
    rows = [torch.cat([part for _, part in shard], dim=1) for shard in index.shards(torch.device("cpu"))]
    return {"rows": torch.cat(rows)} | load_file(index.folder / index.manifest.statistic)


def test_large_groups_are_cut_between_rows_and_shards_are_joined(model, data, tmp_path, monkeypatch, write_limits):
    write_limits(shard_bytes=2**28)
    alone = build_index(model, data, tmp_path / "one", SETTINGS["fisher"], name="tiny").manifest
    assert len(alone.shards) == 1
    monkeypatch.setattr(change, "UNIT_EXAMPLES", 4)
    cut = build_index(model, data, tmp_path / "cut", SETTINGS["fisher"], name="tiny").manifest
    assert len(cut.shards) > 3
    assert cut.groups == alone.groups
    phases: list[int] = []
    monkeypatch.setattr(change, "SUM_BYTES", 1)  # now a unit must have as many examples as there are bytes of sums
    monkeypatch.setattr(passes, "run_units", lambda *given: phases.append(len(given[1])) or run_units(*given))
    joined = build_index(model, data, tmp_path / "joined", SETTINGS["fisher"], name="tiny").manifest
    assert phases == [1]
    assert {name: cut.files[name] for name in cut.shards} == {name: joined.files[name] for name in joined.shards}


@given(
    groups=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), max_size=8),
    most_rows=st.integers(1, 8),
    most=st.integers(1, 20),
    least=st.integers(0, 30),
)
def test_every_row_is_in_one_shard_and_every_shard_in_one_unit(groups, most_rows, most, least):
    counts = np.asarray([count for group in groups for count in group], dtype=np.int64)
    stops = np.cumsum([len(group) for group in groups]).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("credit.valuation.shards.SHARD_BYTES", 4 * most_rows)
        plan = list(plan_shards(stops, 1, counts, most))
    assert [low for low, _ in plan] + stops[-1:] == [0] * bool(groups) + [high for _, high in plan]
    assert all(high - low == 1 or (high - low <= most_rows and counts[low:high].sum() <= most) for low, high in plan)
    row = np.repeat(np.arange(len(counts)), counts)
    destinations = Destinations(np.arange(len(row) + 1), row, np.ones(len(row)))
    if not len(row):
        return
    assert destinations.per_row(len(counts)).tolist() == counts.tolist()
    shards = list(destinations.shards(plan, most))
    joined = list(join_shards(shards, least))
    assert all(one is two for one, two in zip((s for unit in joined for s in unit.shards), shards, strict=True))
    assert all(len(unit.new) >= least for unit in joined[:-1])
    some = destinations.only(list(range(0, len(row), 2)))
    assert some.row.tolist() == row[::2].tolist()


@given(st.lists(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=2), min_size=1, max_size=9), st.data())
def test_sums_do_not_depend_on_which_of_them_were_merged_before(tmp_path_factory, values, draw):
    folder = tmp_path_factory.mktemp("units")
    results = UnitFolder(folder, "gradients", folder, "a build")
    parts = [{"l": torch.tensor(value)} for value in values]
    records: list[UnitRecord] = []
    for number in draw.draw(st.permutations(range(len(parts)))):
        records.append(results.keep(range(number, number + 1), parts[number], shards={}, sizes=values[number][0]))
        records.sort(key=lambda record: record.first)
        if draw.draw(st.booleans()):
            records = results.merge(records)
        assert results.records() == records
        assert all(is_done(unit, records) for record in records for unit in range(record.first, record.stop))
    (record,) = results.merge(records)
    expected = parts[0]["l"]
    total = values[0][0]
    for part, value in zip(parts[1:], values[1:], strict=True):
        expected, total = expected + part["l"], total + value[0]
    assert torch.equal(results.sums(record)["l"], expected)
    assert record.sizes == total
    assert not is_done(len(parts), [record])


def test_a_part_may_lack_a_layer():
    one: dict[str, Tensor] = {"a": torch.ones(2)}
    assert {name: total.tolist() for name, total in add_up([one, {"b": torch.ones(1)}, one]).items()} == {
        "a": [2, 2],
        "b": [1],
    }


def test_moments_of_units_add_up_to_those_of_the_sample(model, data):
    layers = choose_layers(model.module, EVERY)
    examples = [example for record in data for example in model.encoder(64).training(record)]
    sample = choose_sample(HeldExamples(examples), 10)
    cut = sample_units(sample, 3)
    assert [example for unit in cut for example in unit] == sample
    parts = [second_moments(model, layers, unit, tokens_per_batch=100).tensors() for unit in cut]
    together = MomentSums.restored(add_up(parts)).means()
    truth = second_moments(model, layers, sample, tokens_per_batch=100).means()
    assert together.keys() == truth.keys()
    for name, moments in truth.items():
        torch.testing.assert_close(together[name].a, moments.a)
        torch.testing.assert_close(together[name].b, moments.b)
    inputs = {id(moments.a) for moments in together.values()}
    assert len(inputs) == len({id(moments.a) for moments in truth.values()})


def test_a_unit_of_bad_examples_alone_has_no_moments(model, data):
    layers = choose_layers(model.module, EVERY)
    examples = [example for record in data for example in model.encoder(64).training(record)]
    with poisoned(model):
        bad = next(model.encoder(64).training(replace(data[0], completion="z z")))
        assert second_moments(model, layers, [bad], tokens_per_batch=100, exclude=True).tensors() == {}
        mixed = second_moments(model, layers, [bad, *examples], tokens_per_batch=100, exclude=True)
    assert mixed.rows == second_moments(model, layers, examples, tokens_per_batch=100).rows
