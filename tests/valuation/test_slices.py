"""Builds by several workers and by slices without a coordinator: the bytes of one process, whoever does what."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch

from credit.engines import Slice, local
from credit.engines.local import LocalEngine
from credit.errors import IncompleteError, InvalidRequestError, LockHeldError, MismatchError, ValuationError
from credit.records import TrainingRecord
from credit.storage import only_one
from credit.valuation import build_index, change, load_model, passes
from credit.valuation.build import build_slice
from credit.valuation.language_model import LanguageModel
from credit.valuation.revise import update_index, withdraw_provider
from credit.valuation.unit_files import WORK_FOLDER
from tests.models import hidden_settings, save_tiny_model
from tests.valuation.faults import BAD, poisoned

_FORKS = multiprocessing.get_context("fork")
FITTED = hidden_settings(rank=2, rows_per_group=4, projection="pca", curvature="ekfac", layers=("*.0.*",))
RELATIF = hidden_settings(rank=2, rows_per_group=4, weighting="relatif", curvature="fisher", layers=("*.0.*",))
Content = dict[str, bytes]


@pytest.fixture(autouse=True)
def _many_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "UNIT_EXAMPLES", 4)
    monkeypatch.setattr(passes, "FITTING_EXAMPLES", 6)
    monkeypatch.setattr(change, "SUM_BYTES", 2**40)  # every unit of these few examples pays for its sums
    monkeypatch.setattr(local, "PROCESSES", _FORKS)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save_tiny_model(tmp_path_factory.mktemp("slices") / "llama"), dtype="fp32", device="cpu")


def _content(folder: Path) -> Content:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def whole(small: LanguageModel, data: list[TrainingRecord], tmp_path: Path) -> Content:
    """An index that this process has built alone."""
    build_index(small, data, tmp_path / "whole", FITTED, name="tiny")
    return _content(tmp_path / "whole")


@dataclass(frozen=True)
class Loading:
    """Loads the model in a worker, which dies or has a full disk at a unit, once."""

    model: Path
    marks: Path
    fault: str = ""

    def __call__(self) -> LanguageModel:
        torch.set_num_threads(1)
        if self.fault:
            _at_first_unit(self.marks / self.fault)
        return load_model(self.model, dtype="fp32", device="cpu")


def _at_first_unit(mark: Path) -> None:
    """Set off a fault, named as its mark is, where the first file of a unit of any worker gets its name."""

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and "gradients" in str(arguments[1]) and not mark.exists():
            mark.touch()
            if mark.name == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(watch)


def _build(small: LanguageModel, data: Sequence[TrainingRecord], out: Path, workers: int, fault: str = "") -> Content:
    load = Loading(small.path, out.parent, fault)
    build_index(small, data, out, FITTED, name="tiny", engine=LocalEngine(workers), load=load)
    return _content(out)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_workers_changes_no_byte(small, data, whole, tmp_path, workers):
    assert _build(small, data, tmp_path / "index", workers) == whole


def test_a_worker_that_is_killed_in_a_unit_changes_no_byte(small, data, whole, tmp_path):
    assert _build(small, data, tmp_path / "index", 2, "killed") == whole
    assert (tmp_path / "killed").exists()


def test_a_full_disk_of_a_worker_is_an_error_and_the_same_build_resumes(small, data, whole, tmp_path):
    with pytest.raises(ValuationError, match=r"no space is left.*the build resumes"):
        _build(small, data, tmp_path / "index", 2, "full")
    assert _build(small, data, tmp_path / "index", 2) == whole


def test_a_change_by_workers_has_the_bytes_of_one_process_also_if_one_is_killed(small, data, whole, tmp_path):
    shutil.copytree(tmp_path / "whole", tmp_path / "index")
    more = [replace(record, id=f"more-{record.id}") for record in data]
    provider = data[0].group.provider
    engine, fault = LocalEngine(2), Loading(small.path, tmp_path, "killed")
    update_index(tmp_path / "whole", small, more)
    update_index(tmp_path / "index", small, more, engine=engine, loader=lambda _: fault)
    assert (tmp_path / "killed").exists()
    assert _content(tmp_path / "index") == _content(tmp_path / "whole")
    withdraw_provider(tmp_path / "whole", small, provider, [*data, *more])
    withdraw_provider(tmp_path / "index", small, provider, [*data, *more], engine=engine, loader=lambda _: fault)
    assert _content(tmp_path / "index") == _content(tmp_path / "whole")


def test_weights_by_curvature_have_two_passes_of_workers(small, data, tmp_path):
    load = partial(load_model, small.path, dtype="fp32", device="cpu")
    build_index(small, data, tmp_path / "whole", RELATIF, name="tiny")
    build_index(small, data, tmp_path / "index", RELATIF, name="tiny", engine=LocalEngine(2), load=load)
    assert _content(tmp_path / "index") == _content(tmp_path / "whole")


def test_weights_by_curvature_have_two_rounds_of_slices(small, data, tmp_path):
    out = tmp_path / "index"

    def run(number: int) -> None:
        build_slice(small, data, out, RELATIF, name="tiny", part=Slice(number, 3))

    def merge() -> None:
        build_index(small, data, out, RELATIF, name="tiny", merge=True)

    build_index(small, data, tmp_path / "whole", RELATIF, name="tiny")
    run(3)
    run(1)
    assert not list(out.glob("rows-*")), "a row was filled before all units were read"
    with pytest.raises(IncompleteError, match="unit 1 is missing; unit 4 is missing"):
        merge()
    run(2)
    with pytest.raises(IncompleteError, match="unit 0 is missing; unit 2 is missing"):
        merge()
    _in_processes(run, (1,), (3,), (2,))
    merge()
    assert _content(out) == _content(tmp_path / "whole")


@pytest.mark.parametrize("settings", [FITTED, RELATIF], ids=["one round", "two rounds"])
def test_slices_leave_out_the_examples_that_one_process_leaves_out(small, data, tmp_path, settings):
    asked = {"name": "tiny", "exclude_non_finite": True}
    with poisoned(small):
        result = build_index(small, [*BAD, *data], tmp_path / "whole", settings, **asked)
        for number in (2, 1, 2, 1):
            build_slice(small, [*BAD, *data], tmp_path / "index", settings, part=Slice(number, 2), **asked)
        build_index(small, [*BAD, *data], tmp_path / "index", settings, merge=True, **asked)
    assert {example.id for example in result.manifest.excluded} == {record.id for record in BAD}
    assert _content(tmp_path / "index") == _content(tmp_path / "whole")


def test_workers_need_a_way_to_load_the_model_and_find_the_same_one(small, data, tmp_path):
    with pytest.raises(InvalidRequestError, match="give `load`"):
        build_index(small, data, tmp_path / "index", FITTED, name="tiny", engine=LocalEngine(1))
    other = save_tiny_model(tmp_path / "other", seed=7)
    load = Loading(other, tmp_path)
    with pytest.raises(MismatchError, match="another model here"):
        build_index(small, data, tmp_path / "index", FITTED, name="tiny", engine=LocalEngine(1), load=load)


def _slice(small: LanguageModel, data: Sequence[TrainingRecord], out: Path, number: int, count: int = 3) -> int:
    return build_slice(small, data, out, FITTED, name="tiny", part=Slice(number, count))


def _merge(small: LanguageModel, data: Sequence[TrainingRecord], out: Path) -> Content:
    build_index(small, data, out, FITTED, name="tiny", merge=True)
    return _content(out)


def _in_processes(work: Callable[..., int | None], *calls: tuple[object, ...]) -> None:
    """Run calls at once, each in a process of its own."""
    processes = [_FORKS.Process(target=work, args=call) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_slices_in_any_order_twice_and_at_once_make_the_bytes_of_one_process(small, data, whole, tmp_path):
    out = tmp_path / "index"
    torch.set_num_threads(1)
    with pytest.raises(IncompleteError, match="unit 0 is missing; unit 1 is missing"):
        _merge(small, data, out)
    _in_processes(_slice, (small, data, out, 3), (small, data, out, 1))
    with pytest.raises(IncompleteError, match=r"index: unit 1 is missing; unit 4 is missing.*\(U mod N\) \+ 1"):
        _merge(small, data, out)
    assert _slice(small, data, out, 2) + _slice(small, data, out, 3) > 2
    assert _merge(small, data, out) == whole
    assert _slice(small, data, out, 1) == 0, "the index is finished"


def test_merge_names_units_that_are_damaged_truncated_or_of_another_build_and_their_slices_mend_them(
    small, data, whole, tmp_path
):
    out = tmp_path / "index"
    for number in (1, 2, 3):
        _slice(small, data, out, number)
    (work,) = (out / WORK_FOLDER).iterdir()
    record, sums = (work / f"gradients-00000-00001.{kind}" for kind in ("json", "safetensors"))
    shard = out / "rows-00001.safetensors"
    foreign = work / "gradients-00002-00003.json"
    foreign.write_text(foreign.read_text().replace('"build": "', '"build": "0'))
    shard.write_bytes(shard.read_bytes()[:-1])
    sums.write_bytes(b"")
    before = _content(out)
    with pytest.raises(IncompleteError) as told:
        _merge(small, data, out)
    assert f"unit 0 is damaged: {sums.name}; unit 1 is damaged: {shard.name}" in str(told.value)
    assert f"unit 2 is of another build: {foreign.name}" in str(told.value)
    assert {name: content for name, content in _content(out).items() if name != ".lock"} == before
    record.write_text("{")
    with pytest.raises(IncompleteError, match=f"unit 0 is damaged: {record.name}"):
        _merge(small, data, out)
    for number in (1, 2, 3):
        _slice(small, data, out, number)
    assert _merge(small, data, out) == whole


def test_a_slice_at_work_keeps_out_itself_and_the_merge(small, data, tmp_path):
    out = tmp_path / "index"
    for number in (1, 2, 3):
        _slice(small, data, out, number)
    (work,) = (out / WORK_FOLDER).iterdir()
    with only_one(work / Slice(2, 3).lock, ""):
        with pytest.raises(LockHeldError, match="slice 2/3 is at work"):
            _slice(small, data, out, 2)
        with pytest.raises(LockHeldError, match="a slice is at work"):
            _merge(small, data, out)
    with pytest.raises(MismatchError, match="another model, other data or other settings"):
        _slice(small, data[1:], out, 1)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_what_is_no_slice_is_refused(text):
    with pytest.raises(InvalidRequestError, match="slice"):
        Slice.read(text)
