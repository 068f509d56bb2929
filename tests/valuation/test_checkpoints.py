"""An index of several checkpoints or seeds: the weighted mean of the indexes of each."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from credit.errors import IntegrityError, MismatchError, ValuationError
from credit.records import Group, LoggedOutput, TrainingRecord
from credit.valuation import AttributionIndex, Checkpoint, add_checkpoint, build_index, load_model
from credit.valuation.explain import explain_output
from credit.valuation.influence import summarise
from credit.valuation.language_model import LanguageModel
from credit.valuation.manifest import read_manifest, verify_files
from credit.valuation.revise import update_index, withdraw_provider
from tests.models import hidden_settings, records, save_tiny_model
from tests.valuation.conftest import SINGLE, make_output

SETTINGS = hidden_settings(rank=3, rows_per_group=4)
NEW = Group("dora")


@pytest.fixture(scope="module")
def seeds(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> list[LanguageModel]:
    """Two more models of the same shape and tokenizer, with other weights."""
    kind = model.module.config.model_type
    folder = tmp_path_factory.mktemp("seeds")
    return [load_model(save_tiny_model(folder / f"seed-{n}", kind, seed=n), dtype="fp64", device="cpu") for n in (1, 2)]


@pytest.fixture
def checkpoints(seeds: Sequence[LanguageModel]) -> list[Checkpoint]:
    return [Checkpoint(lambda: seeds[0], 2.0), Checkpoint(lambda: seeds[1], 0.5)]


def _open(folder: Path, seeds: Sequence[LanguageModel]) -> AttributionIndex:
    index = AttributionIndex.open(folder)
    index.add_models(*seeds)
    return index


def _mean(
    models: Sequence[LanguageModel], data: Sequence[TrainingRecord], outputs: Sequence[LoggedOutput], tmp_path: Path
) -> Tensor:
    """Row influence of one index for each model, weighted by hand."""
    total = 0
    for weight, one in zip((1.0, 2.0, 0.5), models, strict=True):
        folder = tmp_path / f"alone-{weight}"
        build_index(one, data, folder, SETTINGS, name="tiny")
        total = total + weight / 3.5 * AttributionIndex.open(folder).row_influence(one, outputs)
    return total


def test_influence_is_the_weighted_mean_and_support_is_taken_of_it(model, seeds, checkpoints, data, outputs, tmp_path):
    result = build_index(model, data, tmp_path / "index", SETTINGS, name="tiny", checkpoints=checkpoints)
    truth = _mean([model, *seeds], data, outputs, tmp_path)
    index = _open(tmp_path / "index", seeds)
    torch.testing.assert_close(index.row_influence(model, outputs), truth)
    expected = summarise(truth, index.rows)
    ours = index.value(model, outputs)
    for name in ("influence", "excess", "support", "volume", "noise"):
        torch.testing.assert_close(getattr(ours, name), getattr(expected, name))
    assert [member.weight for member in result.manifest.checkpoints] == [2.0, 0.5]


def test_the_models_are_loaded_from_where_they_were_and_a_missing_one_is_named(
    model, seeds, checkpoints, data, outputs, tmp_path
):
    build_index(model, data, tmp_path / "index", SETTINGS, name="tiny", checkpoints=checkpoints)
    index = AttributionIndex.open(tmp_path / "index")
    with pytest.raises(MismatchError, match=r"checkpoint-1 is of the model .*seed-1, which was not given"):
        index.value(model, outputs)
    loaded = index.load_model(dtype="fp64", device="cpu")
    torch.testing.assert_close(
        index.value(loaded, outputs).effect(), _open(tmp_path / "index", seeds).value(model, outputs).effect()
    )


def test_models_that_were_moved_are_known_by_their_weights(model, seeds, checkpoints, data, outputs, tmp_path):
    places = [Path(shutil.copytree(one.path, tmp_path / f"old-{n}")) for n, one in enumerate([model, *seeds])]
    own, *others = (load_model(place, dtype="fp64", device="cpu") for place in places)
    moving = [Checkpoint(lambda one=one: one, c.weight) for one, c in zip(others, checkpoints, strict=True)]
    build_index(own, data, tmp_path / "index", SETTINGS, name="tiny", checkpoints=moving)
    effect = _open(tmp_path / "index", others).value(own, outputs).effect()
    moved = [place.rename(tmp_path / f"new-{n}") for n, place in enumerate(places)]

    def value(*paths: Path) -> Tensor:
        index = AttributionIndex.open(tmp_path / "index")
        return index.value(index.load_model(*paths, dtype="fp64", device="cpu"), outputs).effect()

    assert torch.equal(value(*reversed(moved)), effect)
    with pytest.raises(ValuationError, match=r"old-1, a model that .* is not there any more; .*--model DIR"):
        value(moved[0], moved[2])
    moved[1].rename(places[1])
    assert torch.equal(value(moved[2], moved[0]), effect)
    stranger = save_tiny_model(tmp_path / "stranger", model.module.config.model_type, seed=9)
    with pytest.raises(MismatchError, match="stranger is not the model"):
        value(moved[0], stranger)
    shutil.rmtree(places[1])
    shutil.copytree(stranger, places[1])
    with pytest.raises(MismatchError, match="has changed"):
        value(moved[0], moved[2])


def test_a_build_that_is_stopped_between_checkpoints_goes_on(model, seeds, checkpoints, data, tmp_path):
    def stop(phase: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    whole = build_index(model, data, tmp_path / "whole", SETTINGS, name="tiny", checkpoints=checkpoints)
    assert not whole.existed
    build_index(model, data, tmp_path / "index", SETTINGS, name="tiny")
    with pytest.raises(KeyboardInterrupt):
        add_checkpoint(tmp_path / "index", checkpoints[0], data, progress=stop)
    assert AttributionIndex.open(tmp_path / "index").further == ()
    result = build_index(model, data, tmp_path / "index", SETTINGS, name="tiny", checkpoints=checkpoints)
    assert not result.existed
    assert result.manifest.fingerprint == whole.manifest.fingerprint
    assert build_index(model, data, tmp_path / "index", SETTINGS, name="tiny", checkpoints=checkpoints).existed
    with pytest.raises(MismatchError, match="holds 2 further checkpoints, not 1; name all of them"):
        build_index(model, data, tmp_path / "index", SETTINGS, name="tiny", checkpoints=checkpoints[:1])


def test_what_would_not_be_one_index_is_refused(model, seeds, checkpoints, data, tmp_path):
    folder = tmp_path / "index"
    build_index(model, data, folder, SETTINGS, name="tiny", checkpoints=checkpoints)
    with pytest.raises(MismatchError, match=r"with weight 2\.0; keep it"):
        add_checkpoint(folder, Checkpoint(lambda: seeds[0], 1.0), data)
    with pytest.raises(MismatchError, match="not a further checkpoint"):
        add_checkpoint(folder, Checkpoint(lambda: model), data)
    with pytest.raises(ValuationError, match="weight 0 of a checkpoint"):
        add_checkpoint(folder, Checkpoint(lambda: seeds[0], 0), data)
    other = replace(seeds[0], tokenizer_sha256="0")
    with pytest.raises(MismatchError, match="another tokenizer"):
        add_checkpoint(folder, Checkpoint(lambda: other), data)
    build_index(model, data, tmp_path / "less", SETTINGS, name="tiny")
    with pytest.raises(MismatchError, match="other data or other rows"):
        add_checkpoint(tmp_path / "less", checkpoints[0], data[:-1])
    shard = folder / "checkpoint-1" / "rows-00000.safetensors"
    shard.write_bytes(b"x" + shard.read_bytes()[1:])
    with pytest.raises(IntegrityError, match="checkpoint-1"):
        verify_files(folder, read_manifest(folder))
    with pytest.raises(IntegrityError, match="checkpoint-1"):
        _open(folder, seeds).value(model, [make_output(0, "the cat", " sat")])


def test_explain_sums_over_checkpoints_too(model, seeds, checkpoints, data, outputs, tmp_path):
    for name, rows in (("all", None), ("folded", 4)):
        settings = replace(SETTINGS, rows_per_group=rows)
        build_index(model, data, tmp_path / name, settings, name="tiny", checkpoints=checkpoints)
    every, folded = (_open(tmp_path / name, seeds) for name in ("all", "folded"))
    direct = explain_output(every, model, outputs[0], top=99)
    recomputed = explain_output(folded, model, outputs[0], records=data, top=99)
    assert [item.id for item in recomputed] == [item.id for item in direct]
    assert [item.influence for item in recomputed] == pytest.approx([item.influence for item in direct], rel=1e-6)


def test_updates_and_withdrawals_change_all_checkpoints_or_none(model, seeds, checkpoints, data, outputs, tmp_path):
    new = records({NEW: 6, SINGLE: 3}, seed=5)
    new = [replace(record, id=f"new-{record.id}") for record in new]
    folder = tmp_path / "index"
    build_index(model, data, folder, SETTINGS, name="tiny", checkpoints=checkpoints)
    before = _open(folder, seeds).value(model, outputs).effect()
    finished = 0

    def stop_at_the_last_model(_phase: str, done: int, total: int) -> None:
        nonlocal finished
        if finished == len(seeds):
            raise KeyboardInterrupt
        finished += done == total

    with pytest.raises(KeyboardInterrupt):
        update_index(folder, model, new, checkpoints=seeds, progress=stop_at_the_last_model)
    assert torch.equal(_open(folder, seeds).value(model, outputs).effect(), before), "half an update counted"
    update_index(folder, model, new, checkpoints=seeds)
    build_index(model, [*data, *new], tmp_path / "new", SETTINGS, name="tiny", checkpoints=checkpoints)
    grown, rebuilt = _open(folder, seeds), _open(tmp_path / "new", seeds)
    assert grown.manifest.inputs.sha256 == rebuilt.manifest.inputs.sha256
    torch.testing.assert_close(grown.value(model, outputs).effect(), rebuilt.value(model, outputs).effect())
    withdraw_provider(folder, model, NEW.provider, new, checkpoints=seeds)
    assert NEW not in _open(folder, seeds).groups
    left = {path.name for path in (folder / "checkpoint-1").iterdir()}
    part = read_manifest(folder / "checkpoint-1", "manifest.v2.json")
    assert left == {*part.files, "manifest.v2.json", ".lock"}


def test_checkpoints_are_added_to_an_index_that_was_revised(model, seeds, checkpoints, data, outputs, tmp_path):
    some = [record for record in data if record.group != SINGLE]
    build_index(model, some, tmp_path / "index", SETTINGS, name="tiny")
    update_index(tmp_path / "index", model, data)
    for checkpoint in checkpoints:
        add_checkpoint(tmp_path / "index", checkpoint, data)
    truth = _mean([model, *seeds], data, outputs, tmp_path)
    torch.testing.assert_close(_open(tmp_path / "index", seeds).row_influence(model, outputs), truth)
