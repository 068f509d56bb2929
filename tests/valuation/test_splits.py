"""Records that several groups share: each gets its share of the gradient, and the record counts once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from credit.errors import InputError, MismatchError, ValuationError
from credit.records import PPM, Group, LoggedOutput, Share, TrainingRecord, agreed_shares
from credit.valuation import (
    AttributionIndex,
    Checkpoint,
    GroupRows,
    IndexSettings,
    build_index,
    load_model,
    summarise,
)
from credit.valuation.explain import explain_output
from credit.valuation.language_model import LanguageModel
from credit.valuation.revise import update_index, withdraw_provider
from credit.valuation.rows import ExampleColumns, lay_out_rows
from tests.models import hidden_settings, records, save_tiny_model
from tests.valuation.comparing import assert_equal_indexes
from tests.valuation.conftest import FOLDED, LONE, SINGLE
from tests.valuation.faults import BAD, poisoned, stopped_often

DORA = Group("dora", "letters")
SETTINGS = {
    "fisher": hidden_settings(rank=3, rows_per_group=4),
    "ekfac": hidden_settings(rank=3, rows_per_group=4, projection="random", curvature="ekfac"),
    "all-rows": hidden_settings(rank=3, rows_per_group=None, curvature="none"),
    "unit": hidden_settings(rank=3, rows_per_group=4, weighting="unit"),
    "relatif": hidden_settings(rank=3, rows_per_group=None, weighting="relatif"),
}


def split(record: TrainingRecord, *shares: tuple[Group, int]) -> TrainingRecord:
    return replace(record, group=None, splits=tuple(Share(group, ppm) for group, ppm in shares))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """One architecture: what is shared out are gradients, wherever they come from."""
    return load_model(save_tiny_model(tmp_path_factory.mktemp("model") / "tiny"), dtype="fp64", device="cpu")


@pytest.fixture
def shared(data: Sequence[TrainingRecord]) -> list[TrainingRecord]:
    """The data, with four records of a folded group and one of single examples shared with others, and a lone one."""
    mixed = list(data)
    for number in (0, 3, 5, 9):
        mixed[number] = split(mixed[number], (FOLDED, 700_000), (DORA, 300_000))
    mixed[14] = split(mixed[14], (LONE, 1), (SINGLE, 499_999), (FOLDED, 500_000))
    return mixed


@pytest.fixture(params=SETTINGS.values(), ids=SETTINGS.keys())
def settings(request: pytest.FixtureRequest) -> IndexSettings:
    return request.param


@pytest.fixture
def small_shards(write_limits: Callable[..., None]) -> None:
    """A shard for every row: parts of one record then lie in several."""
    write_limits(shard_bytes=1)


def _built(
    model: LanguageModel, records: Sequence[TrainingRecord], folder: Path, settings: IndexSettings
) -> AttributionIndex:
    build_index(model, records, folder, settings, name="tiny")
    return AttributionIndex.open(folder)


def _all_rows(index: AttributionIndex, model: LanguageModel) -> Tensor:
    return torch.cat([torch.cat([rows for _, rows in shard], dim=1) for shard in index.shards(model.device)])


def test_a_record_of_which_one_has_all_and_another_nothing_is_not_shared(model, data, tmp_path):
    whole = [split(record, (record.group, PPM), (DORA, 0)) for record in data]
    settings = hidden_settings(rank=3, rows_per_group=4)
    assert whole == data
    one, two = _built(model, data, tmp_path / "one", settings), _built(model, whole, tmp_path / "two", settings)
    assert one.manifest.files == two.manifest.files
    assert one.manifest.fingerprint == two.manifest.fingerprint


def test_the_influence_of_those_who_share_is_their_share_and_sums_to_that_of_the_record(
    model, data, outputs, tmp_path, settings
):
    alone = Group("alone")
    plain = _built(model, [*data[:-1], replace(data[-1], group=alone)], tmp_path / "plain", settings)
    parts = ((Group("eve"), 123_456), (Group("fay"), 876_544))
    index = _built(model, [*data[:-1], split(data[-1], *parts)], tmp_path / "split", settings)
    truth, ours = plain.value(model, outputs).influence, index.value(model, outputs).influence
    expected = truth[:, plain.groups.index(alone)]
    for group, ppm in parts:
        torch.testing.assert_close(ours[:, index.groups.index(group)], expected * ppm / PPM, rtol=1e-9, atol=1e-15)
    for column, group in enumerate(plain.groups):
        if group != alone:
            torch.testing.assert_close(ours[:, index.groups.index(group)], truth[:, column], rtol=1e-9, atol=1e-15)


def test_a_shared_record_is_one_example_of_the_curvature_the_sizes_and_the_counts(
    model, data, shared, outputs, tmp_path, settings, small_shards
):
    plain, index = (
        _built(model, data, tmp_path / "plain", settings),
        _built(model, shared, tmp_path / "split", settings),
    )
    one, two = (load_file(i.folder / i.manifest.statistic) for i in (plain, index))
    assert one.keys() == two.keys()
    for name, total in one.items():
        torch.testing.assert_close(two[name], total, rtol=1e-9, atol=1e-12)
    assert index.manifest.sizes == pytest.approx(plain.manifest.sizes)
    assert index.manifest.examples == plain.manifest.examples == len(data)
    assert index.manifest.tokens == plain.manifest.tokens
    before, after = ({layout.group: layout for layout in i.manifest.groups} for i in (plain, index))
    assert after[FOLDED].examples == before[FOLDED].examples + 1
    assert after[FOLDED].examples_ppm == (13 - 4 * 0.3 + 0.5) * PPM
    assert after[DORA].examples_ppm == 4 * 300_000
    sums = [i.value(model, outputs).influence.sum(1) for i in (plain, index)]
    torch.testing.assert_close(*sums, rtol=1e-9, atol=1e-15)


def test_neither_the_order_of_records_nor_that_of_shares_matters_nor_do_shards(
    model, shared, tmp_path, settings, write_limits
):
    turned = [replace(r, splits=tuple(reversed(r.splits))) for r in reversed(shared)]
    one = _built(model, shared, tmp_path / "one", settings)
    write_limits(shard_bytes=1)
    two = _built(model, turned, tmp_path / "two", settings)
    assert one.manifest.inputs.sha256 == two.manifest.inputs.sha256
    assert one.manifest.groups == two.manifest.groups
    assert torch.equal(one.rows.mass, two.rows.mass)
    torch.testing.assert_close(_all_rows(two, model), _all_rows(one, model), rtol=1e-9, atol=1e-12)


def test_other_shares_are_other_data(model, shared, tmp_path):
    settings = hidden_settings(rank=3, rows_per_group=4)
    one = _built(model, shared, tmp_path / "one", settings)
    other = [replace(shared[0], splits=(Share(FOLDED, 600_000), Share(DORA, 400_000))), *shared[1:]]
    assert _built(model, other, tmp_path / "two", settings).manifest.data_sha256 != one.manifest.data_sha256
    with pytest.raises(MismatchError, match="with another content, provider or share"):
        update_index(tmp_path / "one", model, other)


@pytest.mark.parametrize("name", ["fisher", "all-rows", "unit"])
def test_an_update_with_shared_records_equals_a_rebuild(model, shared, outputs, tmp_path, small_shards, name):
    first = [record for record in shared if DORA not in {share.group for share in record.shares}]
    more = [
        split(record, (DORA, 250_000), (SINGLE, 750_000)) if number % 2 else record
        for number, record in enumerate(replace(r, id=f"new-{r.id}") for r in records({DORA: 6, SINGLE: 3}, seed=5))
    ]
    build_index(model, first, tmp_path / "grown", SETTINGS[name], name="tiny")
    update_index(tmp_path / "grown", model, [*shared, *more])
    build_index(model, [*more, *shared], tmp_path / "new", SETTINGS[name], name="tiny")
    _assert_same(tmp_path / "grown", tmp_path / "new", model, outputs)


@pytest.mark.parametrize("name", ["fisher", "all-rows", "unit"])
def test_who_withdraws_takes_shared_records_along_whole(model, shared, outputs, tmp_path, small_shards, name):
    build_index(model, shared, tmp_path / "shrunk", SETTINGS[name], name="tiny")
    revision = withdraw_provider(tmp_path / "shrunk", model, "dora", shared).history[-1]
    assert (revision.action, revision.providers, revision.examples) == ("withdraw", ("dora",), 4)
    rest = [record for record in shared if DORA not in {share.group for share in record.shares}]
    build_index(model, rest, tmp_path / "new", SETTINGS[name], name="tiny")
    _assert_same(tmp_path / "shrunk", tmp_path / "new", model, outputs)


def test_shared_records_leave_all_checkpoints_of_an_index_with_whoever_withdraws(
    model, shared, outputs, tmp_path, small_shards
):
    other = load_model(save_tiny_model(tmp_path / "seed", seed=1), dtype="fp64", device="cpu")
    more = [Checkpoint(lambda: other, 0.5)]
    build_index(model, shared, tmp_path / "shrunk", SETTINGS["fisher"], name="tiny", checkpoints=more)
    withdraw_provider(tmp_path / "shrunk", model, "dora", shared, checkpoints=[other])
    rest = [record for record in shared if DORA not in {share.group for share in record.shares}]
    build_index(model, rest, tmp_path / "new", SETTINGS["fisher"], name="tiny", checkpoints=more)
    values = []
    for name in ("shrunk", "new"):
        index = AttributionIndex.open(tmp_path / name)
        index.add_models(other)
        values.append(index.value(model, outputs).effect())
    torch.testing.assert_close(*values, rtol=1e-6, atol=1e-12)


def _assert_same(revised: Path, rebuilt: Path, model: LanguageModel, outputs: Sequence[LoggedOutput]) -> None:
    """As `_assert_equal`, over all shards."""
    ours, truth = AttributionIndex.open(revised), AttributionIndex.open(rebuilt)
    torch.testing.assert_close(_all_rows(ours, model), _all_rows(truth, model), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(ours.rows.squares, truth.rows.squares)
    assert_equal_indexes(revised, rebuilt, model, outputs)


def test_a_withdrawal_that_could_not_be_exact_is_refused_by_name(model, data, shared, tmp_path):
    folder = tmp_path / "int8"
    before = _built(model, shared, folder, hidden_settings(rank=3, rows_per_group=4, rows_dtype="int8")).manifest
    with pytest.raises(ValuationError, match=r"ann/books:\d+ is shared.*cannot be taken out of int8 exactly"):
        withdraw_provider(folder, model, "dora", shared)
    assert AttributionIndex.open(folder).manifest == before
    most = [
        split(r, (FOLDED, 500_000), (DORA, 500_000)) if r.group == FOLDED and i > 2 else r for i, r in enumerate(data)
    ]
    build_index(model, most, tmp_path / "few", hidden_settings(rank=3, rows_per_group=4), name="tiny")
    with pytest.raises(ValuationError, match=r"ann/books would have so few examples left.*build it again"):
        withdraw_provider(tmp_path / "few", model, "dora", most)


def test_a_withdrawal_needs_the_shares_that_were_indexed_and_something_that_stays(model, data, shared, tmp_path):
    folder = tmp_path / "index"
    build_index(model, shared, folder, hidden_settings(rank=3, rows_per_group=4), name="tiny")
    other = [split(shared[0], (SINGLE, 700_000), (DORA, 300_000)), *shared[1:]]
    with pytest.raises(MismatchError, match="is shared otherwise than"):
        withdraw_provider(folder, model, "dora", other)
    with pytest.raises(InputError, match="lacks 1 examples of dora/letters"):
        withdraw_provider(folder, model, "dora", shared[1:])
    everything = [split(record, (record.group, 1), (DORA, PPM - 1)) for record in data]
    build_index(model, everything, tmp_path / "all", hidden_settings(rank=3, rows_per_group=4), name="tiny")
    with pytest.raises(InputError, match="holds nothing but the data of dora"):
        withdraw_provider(tmp_path / "all", model, "dora", everything)


@pytest.mark.parametrize("weighting", ["none", "unit", "relatif"])
def test_explained_from_rows_and_from_data_every_group_has_its_share(model, shared, outputs, tmp_path, weighting):
    every, folded = (
        _built(model, shared, tmp_path / name, hidden_settings(rank=3, rows_per_group=rows, weighting=weighting))
        for name, rows in (("all", None), ("folded", 4))
    )
    direct = explain_output(every, model, outputs[0], top=100)
    again = explain_output(folded, model, outputs[0], records=shared, top=100)
    assert [(item.id, item.group, item.ppm) for item in direct] == [(item.id, item.group, item.ppm) for item in again]
    assert [item.influence for item in again] == pytest.approx([item.influence for item in direct], rel=1e-7)
    of_one = {item.group: item for item in direct if item.id == shared[0].id}
    assert {group: item.ppm for group, item in of_one.items()} == {FOLDED: 700_000, DORA: 300_000}
    assert of_one[DORA].influence * 7 == pytest.approx(of_one[FOLDED].influence * 3)
    total = every.value(model, outputs[:1]).influence[0, every.groups.index(DORA)].item()
    assert sum(item.influence for item in direct if item.group == DORA) == pytest.approx(total)


@pytest.mark.parametrize("name", ["fisher", "relatif"])
def test_a_build_that_is_stopped_anywhere_counts_a_shared_record_once_all_the_same(
    model, shared, tmp_path, small_shards, write_limits, name
):
    write_limits(waiting_bytes=0)
    whole = build_index(model, shared, tmp_path / "whole", SETTINGS[name], name="tiny")
    stopped, steps = stopped_often(
        lambda stop: build_index(model, shared, tmp_path / "stopped", SETTINGS[name], name="tiny", progress=stop),
        most=40,
        every=5,
    )
    assert 12 < len(steps) < 200
    assert steps[-1][1] == steps[-1][2]
    assert stopped.manifest.files == whole.manifest.files


@pytest.mark.parametrize("name", ["fisher", "relatif", "unit"])
def test_a_shared_record_without_a_finite_gradient_is_left_out_of_every_group(
    model, shared, outputs, tmp_path, small_shards, name
):
    bad = [
        split(BAD[0], (FOLDED, 500_000), (LONE, 500_000)),
        split(BAD[2], (BAD[2].group, 1), (LONE, 999_999)),
    ]
    settings = replace(SETTINGS[name], rows_dtype="fp32")
    with poisoned(model):
        made = build_index(model, [*shared, *bad], tmp_path / "index", settings, name="tiny", exclude_non_finite=True)
        grown = build_index(model, shared, tmp_path / "grown", settings, name="tiny").manifest
        if name != "relatif":
            grown = update_index(tmp_path / "grown", model, bad, exclude_non_finite=True)
            assert {(e.id, e.shares) for e in grown.excluded} == {(r.id, r.shares) for r in bad}
            with pytest.raises(ValuationError, match=r"gradient of again is not finite"):
                update_index(tmp_path / "grown", model, [replace(bad[0], id="again"), *shared])
        assert grown.groups == made.manifest.groups
    assert {(e.id, e.shares) for e in made.manifest.excluded} == {(r.id, r.shares) for r in bad}
    assert made.manifest.examples == len(shared)
    truth = _built(model, shared, tmp_path / "good", settings)
    for folder in ("index", "grown"):
        ours = AttributionIndex.open(tmp_path / folder)
        assert ours.manifest.groups == truth.manifest.groups
        torch.testing.assert_close(ours.row_influence(model, outputs), truth.row_influence(model, outputs))


def test_support_is_the_share_of_what_the_whole_example_supports_by():
    values = torch.tensor([[3.0, 1.0, -1.0, 0.5, 0.2, 2.0]], dtype=torch.float64)
    own, noise = torch.tensor([0, 0, 0, 1, 1, 1]), 0.9
    whole = GroupRows(own, torch.ones(6, dtype=torch.int64), 2)
    truth = summarise(values, whole, noise)
    # Every example of the second group is shared with a third, by different shares.
    share = torch.tensor([0.5, 0.25, 0.9], dtype=torch.float64)
    parts = torch.cat([values, values[:, 3:] * (1 - share)], dim=1)
    parts[:, 3:6] *= share
    mass = torch.cat([torch.ones(3, dtype=torch.float64), share, 1 - share])
    rows = GroupRows(
        torch.cat([own, torch.tensor([2, 2, 2])]), torch.ones(9, dtype=torch.int64), 3, mass, mass.square()
    )
    tau = float(truth.noise)
    found = summarise(parts, rows, noise)
    scaled = summarise(parts, rows, noise * tau / float(found.noise))  # the same threshold, in nats
    assert float(scaled.noise) == pytest.approx(tau)
    assert float(scaled.support[0, 1] + scaled.support[0, 2]) == pytest.approx(float(truth.support[0, 1]))
    assert float(scaled.influence[0, 1] + scaled.influence[0, 2]) == pytest.approx(float(truth.influence[0, 1]))
    for group, weights in ((1, share), (2, 1 - share)):  # the noise of Σ w x is τ times the root of Σ w²
        beyond = abs(float(scaled.influence[0, group])) - tau * float(weights.square().sum().sqrt())
        assert abs(float(scaled.excess[0, group])) == pytest.approx(max(beyond, 0.0))


def test_the_spread_of_shared_examples_is_estimated_without_bias():
    generator = torch.Generator().manual_seed(0)
    draws, folds, fold = 4000, 8, 5
    share = 0.1 + 0.9 * torch.rand(folds, fold, generator=generator, dtype=torch.float64)
    examples = 0.3 + 2.0 * torch.randn(draws, folds, fold, generator=generator, dtype=torch.float64)
    rows = GroupRows(
        torch.zeros(folds, dtype=torch.int64),
        torch.full((folds,), fold),
        1,
        share.sum(1),
        share.square().sum(1),
    )
    found = summarise((examples * share).sum(2), rows)
    spread = (found.volume[:, 0] / share.sum()).square().mean().sqrt()
    assert float(spread) == pytest.approx(2.0, rel=0.06)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([(SINGLE, 500_000), (LONE, 499_999)], "sum to 0.999999, not to 1"),
        ([(SINGLE, 500_000), (SINGLE, 500_000)], "ben/blog is named twice"),
        ([(SINGLE, -1), (LONE, PPM + 1)], "the share of ben/blog is negative"),
        ([(SINGLE, 0)], "sum to 0, not to 1"),
    ],
)
def test_shares_that_are_not_all_of_a_record_are_refused(shares, message):
    with pytest.raises(InputError, match=message):
        agreed_shares(Share(group, ppm) for group, ppm in shares)


def test_a_record_has_a_group_or_splits(data):
    for groups in ({"group": None}, {"splits": (Share(LONE),)}):
        with pytest.raises(InputError, match="a group is needed, or splits, and not both"):
            replace(data[0], **groups)


def test_parts_sum_without_rounding_whatever_the_order():
    rng = np.random.default_rng(0)
    parts = [tuple(Share(Group(f"p{k}"), int(p)) for k, p in enumerate((a, PPM - a))) for a in rng.integers(1, PPM, 50)]
    ids = [f"e{i}" for i in range(50)]
    one = lay_out_rows(ExampleColumns.of(ids, parts, [1] * 50), 4)
    two = lay_out_rows(ExampleColumns.of(ids[::-1], parts[::-1], [1] * 50), 4)
    assert one.groups == two.groups
    assert one.counts.squares.tolist() == two.counts.squares.tolist()
    assert sum(layout.examples_ppm for layout in one.groups) == 50 * PPM
