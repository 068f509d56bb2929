from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from credit.errors import InputError, MismatchError, ValuationError
from credit.records import Group, Share, TrainingRecord
from credit.valuation import AttributionIndex, build_index
from credit.valuation import writer as writer_module
from credit.valuation.manifest import IndexSettings
from credit.valuation.probe import Probe
from credit.valuation.revise import plan_revision, update_index, withdraw_provider
from tests.models import hidden_settings, records
from tests.valuation.comparing import assert_equal_indexes
from tests.valuation.conftest import FOLDED, LONE, SINGLE

SETTINGS = {
    "random-fisher": hidden_settings(rank=3, rows_per_group=4),
    "random-none": hidden_settings(rank=3, rows_per_group=4, curvature="none"),
    "all-rows": hidden_settings(rank=3, rows_per_group=None),
}
NEW = Group("dora", "letters")


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS.keys())
def settings(request: pytest.FixtureRequest) -> IndexSettings:
    return request.param


@pytest.fixture
def more() -> list[TrainingRecord]:
    """New data: a new provider, and more of two groups, one of which must fold now that was not folded before."""
    return [replace(r, id=f"new-{r.id}") for r in records({NEW: 6, SINGLE: 3, FOLDED: 2}, seed=5)]


def test_an_update_equals_a_rebuild(model, data, more, outputs, tmp_path, settings):
    build_index(model, data, tmp_path / "grown", settings, name="tiny")
    manifest = update_index(tmp_path / "grown", model, [*data, *more])
    assert [(step.action, step.providers) for step in manifest.history] == [("update", ("ann", "ben", "dora"))]
    build_index(model, [*data, *more], tmp_path / "new", settings, name="tiny")
    assert_equal_indexes(tmp_path / "grown", tmp_path / "new", model, outputs)
    assert build_index(model, [*more, *data], tmp_path / "grown", settings, name="tiny").existed


def test_a_withdrawal_equals_a_rebuild_without_the_provider(model, data, outputs, tmp_path, settings):
    build_index(model, data, tmp_path / "shrunk", settings, name="tiny")
    manifest = withdraw_provider(tmp_path / "shrunk", model, "ann", data)
    assert manifest.history[-1].action == "withdraw"
    build_index(model, [r for r in data if r.group != FOLDED], tmp_path / "new", settings, name="tiny")
    assert_equal_indexes(tmp_path / "shrunk", tmp_path / "new", model, outputs)
    content = b"".join(path.read_bytes() for path in (tmp_path / "shrunk").iterdir() if path.name != "manifest.json")
    assert b"ann/books" not in content


def test_a_change_deletes_only_files_of_the_index(model, data, more, tmp_path, settings):
    build_index(model, data, tmp_path / "index", settings, name="tiny")
    own = ["README.md", "rows.txt", ".notes.tmp", "examples.jsonl.gz", "rows-00000.safetensors.bak"]
    for name in own:
        (tmp_path / "index" / name).write_text("mine")
    (tmp_path / "index" / "rows-00077.safetensors").write_text("of a killed run")
    (tmp_path / "index" / f".rows-00077.safetensors.credit-{'0' * 16}.tmp").write_text("of a killed run")
    update_index(tmp_path / "index", model, [*data, *more])
    left = {path.name for path in (tmp_path / "index").iterdir()}
    assert left - set(AttributionIndex.open(tmp_path / "index").manifest.files) == {"manifest.json", ".lock", *own}


def test_adding_and_withdrawing_comes_back_to_the_same_index(model, data, more, outputs, tmp_path, settings):
    new = [r for r in more if r.group == NEW]
    build_index(model, data, tmp_path / "index", settings, name="tiny")
    shutil.copytree(tmp_path / "index", tmp_path / "before")
    update_index(tmp_path / "index", model, new)
    withdraw_provider(tmp_path / "index", model, "dora", new)
    assert_equal_indexes(tmp_path / "index", tmp_path / "before", model, outputs)


def test_fitted_projections_stay_those_of_the_first_data(model, data, more, outputs, tmp_path):
    settings = hidden_settings(rank=3, rows_per_group=4, projection="pca", curvature="ekfac")
    build_index(model, data, tmp_path / "index", settings, name="tiny")
    before = AttributionIndex.open(tmp_path / "index")
    update_index(tmp_path / "index", model, more)
    after = AttributionIndex.open(tmp_path / "index")
    assert after.manifest.files["projections.safetensors"] == before.manifest.files["projections.safetensors"]
    assert after.manifest.examples == before.manifest.examples + len(more)
    withdraw_provider(tmp_path / "index", model, "dora", more)
    assert AttributionIndex.open(tmp_path / "index").value(model, outputs).influence.isfinite().all()


def test_many_small_shards_change_nothing(model, data, more, outputs, tmp_path, write_limits):
    write_limits(shard_bytes=1)
    settings = hidden_settings(rank=3, rows_per_group=4)
    build_index(model, data, tmp_path / "index", settings, name="tiny")
    update_index(tmp_path / "index", model, more)
    build_index(model, [*data, *more], tmp_path / "new", settings, name="tiny")
    ours, truth = (AttributionIndex.open(tmp_path / name).value(model, outputs) for name in ("index", "new"))
    torch.testing.assert_close(ours.effect(), truth.effect(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("provider", [None, "dora"])
def test_a_plan_counts_what_the_change_leaves_and_its_needs_are_announced_before_the_work(
    model, data, more, tmp_path, provider
):
    folder = tmp_path / "index"
    lent = replace(data[0], id="lent", group=None, splits=(Share(FOLDED, 400_000), Share(NEW, 600_000)))
    build_index(model, data if provider is None else [*data, *more, lent], folder, hidden_settings(rank=3), name="tiny")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    plan = plan_revision(folder, model, [*data, *more, lent], withdraw=provider)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    told: list[object] = []
    options = {"announce": told.append, "progress": lambda _phase, done, total: told.append((done, total))}
    if provider is None:
        manifest = update_index(folder, model, [*data, *more, lent], **options)
    else:
        manifest = withdraw_provider(folder, model, provider, [*more, lent], **options)
    assert (plan.examples, plan.tokens, plan.groups) == (manifest.examples, manifest.tokens, len(manifest.groups))
    assert (plan.rows, plan.changing) == (manifest.groups[-1].stop, manifest.history[-1].examples)
    needs, *steps = told
    assert needs.seconds > 0
    assert needs.batch_bytes > 0
    assert replace(needs, seconds=0, batch_bytes=0) == replace(plan.needs, seconds=0, batch_bytes=0)
    assert steps[-1][0] == steps[-1][1], "what was planned was done"
    again = plan_revision(folder, model, [*data, *more, lent], withdraw=provider)
    assert (again.existed, again.changing, again.needs.seconds) == (True, 0, 0.0)
    assert (again.examples, again.tokens) == (manifest.examples, manifest.tokens)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_the_time_of_a_change_counts_the_copying_of_all_rows(
    model, data, more, tmp_path, monkeypatch, dtype, write_limits
):
    """On a clock on which a byte takes one second to read and three to store, and nothing else takes any."""
    write_limits(shard_bytes=1)
    settings = hidden_settings(rank=3, rows_per_group=4, rows_dtype=dtype, curvature="none")
    build_index(model, data, tmp_path / "index", settings, name="tiny")
    index = AttributionIndex.open(tmp_path / "index")
    sizes = [(index.folder / shard).stat().st_size for shard in index.manifest.shards]
    assert len(sizes) > 5
    monkeypatch.setattr(writer_module, "timed", lambda run, _device: run() or float(sizes[0]))
    nothing = Probe(gradient=0.0, moment=0.0, summing=0.0, weighing=0.0, once=0.0, batch_bytes=1)
    monkeypatch.setattr(writer_module, "probe", lambda *_args, **_options: nothing)
    monkeypatch.setattr(writer_module, "storing_seconds", lambda _folder, size, _device: 3.0 * size)
    assert plan_revision(tmp_path / "index", model, more).needs.seconds == pytest.approx(4 * sum(sizes))


def test_a_change_that_cannot_fit_is_refused_before_the_work(model, data, more, tmp_path, machine_with):
    build_index(model, data, tmp_path / "index", hidden_settings(rank=3), name="tiny")
    machine_with(10_000)
    for change in (
        lambda: plan_revision(tmp_path / "index", model, more),
        lambda: update_index(tmp_path / "index", model, more, announce=print),
    ):
        with pytest.raises(ValuationError, match=r"the build needs .* of memory on cpu beside the model"):
            change()


def test_a_change_that_stops_midway_leaves_the_index_as_it_was(model, data, more, outputs, tmp_path):
    build_index(model, data, tmp_path / "index", hidden_settings(rank=3, rows_per_group=4), name="tiny")
    before = AttributionIndex.open(tmp_path / "index").value(model, outputs).effect()

    def stop(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_index(tmp_path / "index", model, more, progress=stop)
    assert torch.equal(AttributionIndex.open(tmp_path / "index").value(model, outputs).effect(), before)
    update_index(tmp_path / "index", model, more)
    assert update_index(tmp_path / "index", model, more).history[-1].examples == len(more)
    manifest = AttributionIndex.open(tmp_path / "index").manifest
    left = {path.name for path in (tmp_path / "index").iterdir()}
    assert left <= {*manifest.files, "manifest.json", ".lock"}


def test_what_cannot_be_changed_is_refused_and_named(model, data, tmp_path):
    folder = tmp_path / "index"
    build_index(model, data, folder, hidden_settings(rank=3, rows_per_group=4), name="tiny")
    with pytest.raises(InputError, match="eve has no data"):
        withdraw_provider(folder, model, "eve", data)
    with pytest.raises(InputError, match="lacks 13 examples of ann/books"):
        withdraw_provider(folder, model, "ann", [r for r in data if r.group == LONE])
    changed = replace(data[0], completion="another song")
    with pytest.raises(MismatchError, match="another content"):
        update_index(folder, model, [changed])
    for provider in ("ann", "ben"):
        withdraw_provider(folder, model, provider, data)
    with pytest.raises(InputError, match="nothing but the data of cleo"):
        withdraw_provider(folder, model, "cleo", data)
