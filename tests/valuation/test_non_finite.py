"""An example whose gradient is not finite is named, and spoils no sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from credit.errors import ValuationError
from credit.records import LoggedOutput
from credit.valuation import AttributionIndex, Checkpoint, build_index, load_model
from credit.valuation.explain import explain_output
from credit.valuation.language_model import LanguageModel
from credit.valuation.revise import update_index, withdraw_provider
from tests.models import hidden_settings, save_tiny_model, sentence
from tests.valuation.conftest import SINGLE
from tests.valuation.faults import BAD, GONE, poisoned

SETTINGS = {
    "fisher": hidden_settings(rank=3, rows_per_group=5),
    "ekfac": hidden_settings(rank=3, rows_per_group=5, curvature="ekfac", projection="pca"),
    "relatif": hidden_settings(rank=3, rows_per_group=5, weighting="relatif"),
    "unit": hidden_settings(rank=3, rows_per_group=5, weighting="unit", rows_dtype="int8"),
}


def _assert_same(ours: Path, truth: Path, model: LanguageModel, outputs: Sequence[LoggedOutput]) -> None:
    ours, truth = AttributionIndex.open(ours), AttributionIndex.open(truth)
    assert ours.groups == truth.groups
    assert ours.manifest.groups == truth.manifest.groups
    a, b = ours.value(model, outputs), truth.value(model, outputs)
    torch.testing.assert_close(a.effect(), b.effect(), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(ours.row_influence(model, outputs), truth.row_influence(model, outputs))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("where", ["input", "gradient"])
@pytest.mark.parametrize("tokens_per_batch", [1, 100_000], ids=["one", "all"])
def test_an_index_without_them_is_that_of_the_good_examples(
    model, data, outputs, tmp_path, settings, where, tokens_per_batch
):
    with poisoned(model, where):
        result = build_index(
            model,
            [*BAD, *data],
            tmp_path / "index",
            settings,
            name="tiny",
            tokens_per_batch=tokens_per_batch,
            exclude_non_finite=True,
        )
    build_index(model, data, tmp_path / "good", settings, name="tiny")
    assert {(e.id, e.shares) for e in result.manifest.excluded} == {(r.id, r.shares) for r in BAD}
    assert result.manifest.examples == len(data)
    assert result.manifest.fingerprint != AttributionIndex.open(tmp_path / "good").manifest.fingerprint
    _assert_same(tmp_path / "index", tmp_path / "good", model, outputs)


def test_the_first_is_named_with_the_remedy_and_the_build_can_go_on_from_there(model, data, outputs, tmp_path):
    settings = SETTINGS["fisher"]
    with poisoned(model):
        with pytest.raises(ValuationError, match=r"gradient of bad-\d is not finite .*--non-finite exclude"):
            build_index(model, [*data, *BAD], tmp_path / "index", settings, name="tiny")
        with pytest.raises(ValuationError, match=r"gradient of bad-\d is not finite .*--non-finite exclude"):
            build_index(model, [*data, *BAD], tmp_path / "fitted", SETTINGS["ekfac"], name="tiny")
        go_on = {"name": "tiny", "exclude_non_finite": True}
        assert not build_index(model, [*data, *BAD], tmp_path / "index", settings, **go_on).existed
        assert build_index(model, [*data, *BAD], tmp_path / "index", settings, **go_on).existed
    with pytest.raises(ValuationError, match=r"excludes 3 examples .* such as bad-"):
        build_index(model, [*data, *BAD], tmp_path / "index", settings, name="tiny")
    build_index(model, data, tmp_path / "good", settings, name="tiny")
    _assert_same(tmp_path / "index", tmp_path / "good", model, outputs)


@pytest.mark.parametrize("weighting", ["none", "relatif"])
def test_a_stopped_build_knows_again_what_it_left_out(model, data, outputs, tmp_path, write_limits, weighting):
    write_limits(shard_bytes=1, waiting_bytes=0)
    settings = hidden_settings(rank=3, rows_per_group=5, weighting=weighting)
    steps = 0

    def stop(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps % 4 == 0:
            raise KeyboardInterrupt

    with poisoned(model):
        for _ in range(60):
            try:
                build_index(
                    model,
                    [*data, *BAD],
                    tmp_path / "index",
                    settings,
                    name="tiny",
                    exclude_non_finite=True,
                    progress=stop,
                )
                break
            except KeyboardInterrupt:
                continue
    build_index(model, data, tmp_path / "good", settings, name="tiny")
    assert len(AttributionIndex.open(tmp_path / "index").manifest.excluded) == len(BAD)
    _assert_same(tmp_path / "index", tmp_path / "good", model, outputs)


def test_updates_and_withdrawals_leave_them_out_too(model, data, outputs, tmp_path):
    settings = SETTINGS["fisher"]
    some = [record for record in data if record.group != SINGLE]
    build_index(model, some, tmp_path / "grown", settings, name="tiny")
    with poisoned(model):
        with pytest.raises(ValuationError, match=r"gradient of bad-\d is not finite"):
            update_index(tmp_path / "grown", model, [*data, *BAD])
        update_index(tmp_path / "grown", model, [*data, *BAD], exclude_non_finite=True)
        build_index(model, [*data, *BAD], tmp_path / "new", settings, name="tiny", exclude_non_finite=True)
        grown, new = AttributionIndex.open(tmp_path / "grown"), AttributionIndex.open(tmp_path / "new")
        assert grown.manifest.inputs.sha256 == new.manifest.inputs.sha256
        assert update_index(tmp_path / "grown", model, [*data, *BAD]).history == grown.manifest.history
    _assert_same(tmp_path / "grown", tmp_path / "new", model, outputs)
    withdraw_provider(tmp_path / "grown", model, SINGLE.provider, [*data, *BAD])
    manifest = withdraw_provider(tmp_path / "grown", model, GONE.provider, BAD)
    assert [example.id for example in manifest.excluded] == ["bad-1"]
    build_index(model, some, tmp_path / "small", settings, name="tiny")
    _assert_same(tmp_path / "grown", tmp_path / "small", model, outputs)


def test_explain_passes_them_over(model, data, outputs, tmp_path):
    with poisoned(model):
        build_index(model, [*data, *BAD], tmp_path / "index", SETTINGS["fisher"], name="tiny", exclude_non_finite=True)
    found = explain_output(AttributionIndex.open(tmp_path / "index"), model, outputs[0], records=[*data, *BAD], top=99)
    assert sorted(item.id for item in found) == sorted(record.id for record in data)


def test_nothing_is_no_index(model, out):
    with poisoned(model), pytest.raises(ValuationError, match="no training example has a finite gradient"):
        build_index(model, BAD, out, hidden_settings(rank=3), name="tiny", exclude_non_finite=True)
    settings = replace(SETTINGS["ekfac"], sample=2)
    with poisoned(model), pytest.raises(ValuationError, match="no second moments"):
        build_index(model, BAD, out.with_name("fitted"), settings, name="tiny", exclude_non_finite=True)
    assert not (out / "manifest.json").exists()


def test_an_output_that_is_not_finite_is_named(model, data, outputs, out):
    build_index(model, data, out, hidden_settings(rank=3), name="tiny")
    bad = replace(outputs[0], external_id="odd", completion=" z")
    with poisoned(model), pytest.raises(ValuationError, match="gradient of odd is not finite"):
        AttributionIndex.open(out).value(model, [*outputs, bad])


@pytest.mark.parametrize("tokens_per_batch", [1, 100_000], ids=["one", "all"])
def test_the_others_are_valued_as_if_it_had_not_been_asked_about(model, data, outputs, out, tokens_per_batch):
    build_index(model, data, out, hidden_settings(rank=3, max_length=32), name="tiny")
    index = AttributionIndex.open(out)
    bad = replace(outputs[0], external_id="odd", completion=" z")
    windows = replace(outputs[0], external_id="long", completion=f" z {sentence(5, 60)}")  # one window of several
    mixed = [outputs[0], bad, *outputs[1:], windows]
    found: list[int] = []
    with poisoned(model):
        ours = index.value(model, mixed, tokens_per_batch=tokens_per_batch, non_finite=found)
    assert found == [1, len(mixed) - 1]
    truth = index.value(model, outputs, tokens_per_batch=tokens_per_batch)
    for name in ("influence", "support", "volume", "noise"):
        torch.testing.assert_close(getattr(ours, name), getattr(truth, name), rtol=1e-7, atol=1e-12)
    none: list[int] = []
    index.value(model, outputs, non_finite=none)
    assert none == []
    with poisoned(model):
        assert index.value(model, [bad], non_finite=none).influence.shape == (0, len(index.groups))


def test_an_output_must_be_finite_in_every_checkpoint(model, data, outputs, out, tmp_path):
    other = load_model(
        save_tiny_model(tmp_path / "seed", model.module.config.model_type, seed=1), dtype="fp64", device="cpu"
    )
    build_index(model, data, out, hidden_settings(rank=3), name="tiny", checkpoints=[Checkpoint(lambda: other)])
    index = AttributionIndex.open(out)
    index.add_models(other)
    found: list[int] = []
    with poisoned(other):
        ours = index.value(model, [replace(outputs[0], completion=" z"), *outputs], non_finite=found)
    assert found == [0]
    torch.testing.assert_close(ours.effect(), index.value(model, outputs).effect())
