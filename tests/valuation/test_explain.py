from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from credit.errors import InputError, MismatchError
from credit.records import Group, TrainingRecord
from credit.valuation import AttributionIndex, build_index
from credit.valuation.explain import explain_output
from credit.valuation.language_model import LanguageModel
from tests.models import hidden_settings
from tests.valuation.conftest import LONE, SINGLE


@pytest.fixture
def folded(model: LanguageModel, data: Sequence[TrainingRecord], tmp_path: Path) -> AttributionIndex:
    build_index(model, data, tmp_path / "folded", hidden_settings(rank=3, rows_per_group=4), name="tiny")
    return AttributionIndex.open(tmp_path / "folded")


@pytest.fixture
def every(model: LanguageModel, data: Sequence[TrainingRecord], tmp_path: Path) -> AttributionIndex:
    build_index(model, data, tmp_path / "all", hidden_settings(rank=3, rows_per_group=None), name="tiny")
    return AttributionIndex.open(tmp_path / "all")


def test_recomputed_from_data_equals_the_per_example_index(model, data, outputs, folded, every):
    for output in outputs:
        recomputed = explain_output(folded, model, output, records=data, top=100)
        direct = explain_output(every, model, output, top=100)
        assert [item.id for item in recomputed] == [item.id for item in direct]
        assert [item.influence for item in recomputed] == pytest.approx([item.influence for item in direct], rel=1e-7)


def test_the_examples_of_a_group_sum_to_its_influence(model, data, outputs, folded):
    value = folded.value(model, [outputs[0]])
    for column, group in enumerate(folded.groups):
        parts = explain_output(folded, model, outputs[0], groups=[group], records=data, top=100)
        assert {item.group for item in parts} == {group}
        total = sum(item.influence for item in parts)
        assert total == pytest.approx(value.influence[0, column].item(), rel=1e-7)


def test_the_strongest_come_first_and_no_more_than_asked(model, outputs, every):
    values = [item.influence for item in explain_output(every, model, outputs[0], top=3)]
    assert values == sorted(values, reverse=True)
    assert len(values) == 3


def test_data_is_needed_only_for_folded_groups_and_must_be_what_was_indexed(model, data, outputs, folded):
    assert explain_output(folded, model, outputs[0], groups=[SINGLE, LONE])
    with pytest.raises(InputError, match=r"ann/books is folded.*--rows-per-group all"):
        explain_output(folded, model, outputs[0])
    with pytest.raises(InputError, match="lacks 1 examples of ann/books"):
        explain_output(folded, model, outputs[0], records=[r for r in data if r.id != "ann/books:3"])
    changed = [replace(r, completion=r.completion + " ships") if r.id == "ann/books:3" else r for r in data]
    with pytest.raises(MismatchError, match="ann/books:3"):
        explain_output(folded, model, outputs[0], records=changed)
    with pytest.raises(InputError, match="eve/default is not in"):
        explain_output(folded, model, outputs[0], groups=[Group("eve")], records=data)
