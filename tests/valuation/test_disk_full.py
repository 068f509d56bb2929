"""A disk that is full ends a build with a message, keeps what was finished, and lets the next run go on.

The kernel itself refuses to write, in a process of its own: RLIMIT_FSIZE, which needs no rights and no mount, makes a
file that grows past the limit fail as a full disk does, with EFBIG where that has ENOSPC.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from credit.errors import ValuationError
from credit.storage import why_disk_is_full, write_whole
from credit.valuation import AttributionIndex, build_index
from credit.valuation.revise import update_index, withdraw_provider
from credit.valuation.shards import save_tensors
from tests.models import hidden_settings, records
from tests.valuation.conftest import FOLDED

_FORKS = multiprocessing.get_context("fork")


def _limited(channel: Connection, largest_file: int, work: Callable[[], object]) -> None:
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        work()
    except ValuationError as error:
        channel.send(str(error))
    else:
        channel.send(None)


def _with_room_for(largest_file: int, work: Callable[[], object]) -> str | None:
    """Do some work where no file may grow larger; return what it said, or None if it was done."""
    ours, theirs = _FORKS.Pipe()
    child = _FORKS.Process(target=_limited, args=(theirs, largest_file, work))
    child.start()
    theirs.close()
    said = ours.recv()
    child.join()
    assert child.exitcode == 0
    return said


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _stop_after_fitting(phase: str, *_: int) -> None:
    if phase != "moments":
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("settings", "shard_bytes"),
    [
        (hidden_settings(rank=1000, rows_per_group=4, layers=("*.0.*",)), 16384),
        (hidden_settings(rank=12, rows_per_group=4, weighting="relatif", curvature="ekfac"), 2**20),
    ],
    ids=["one-pass", "two-passes"],
)
def test_a_build_that_finds_the_disk_full_says_so_and_goes_on_when_there_is_room(
    model, data, tmp_path, settings, shard_bytes, write_limits
):
    write_limits(shard_bytes=shard_bytes, waiting_bytes=0)
    whole, full = tmp_path / "whole", tmp_path / "full"
    build_index(model, data, whole, settings, name="tiny")
    failed_at = set()
    sizes = {size for size in _sizes(whole).values() if size}
    # A file that is larger by a byte is the first to fail; with room for next to nothing, the state of the build is.
    for limit in sorted({50, *(size - 1 for size in sizes)}):
        before = AttributionIndex.open(full).manifest if (full / "manifest.json").exists() else None
        there = _sizes(full).keys()
        said = _with_room_for(limit, lambda: build_index(model, data, full, settings, name="tiny"))
        if before:
            assert said is None
            continue
        assert said is not None
        assert "cannot be written: files may not be as large as that here" in said
        assert "of disk in all" in said
        assert "the build resumes" in said
        failed = said.split(" cannot be written")[0].rpartition("/")[2]
        failed_at.add(failed)
        if failed.startswith("moments-"):
            # They are larger than all that comes after them: fit the projections where there is room.
            with pytest.raises(KeyboardInterrupt):
                build_index(model, data, full, settings, name="tiny", progress=_stop_after_fitting)
            continue
        left = _sizes(full)
        assert not [name for name in left if name.endswith(".tmp")], "what cannot be used takes up room"
        assert max((size for name, size in left.items() if name not in there), default=0) <= limit
    assert len(failed_at) > 2, f"the disk was full only at {failed_at}"
    build_index(model, data, full, settings, name="tiny")
    assert AttributionIndex.open(full).manifest == AttributionIndex.open(whole).manifest
    assert _sizes(full) == _sizes(whole), "something was left over"


def test_what_was_finished_is_not_done_again(model, data, tmp_path, write_limits):
    write_limits(shard_bytes=1, waiting_bytes=0)
    settings = hidden_settings(rank=3, rows_per_group=4)
    build_index(model, data, tmp_path / "whole", settings, name="tiny")
    manifest = AttributionIndex.open(tmp_path / "whole").manifest
    full = tmp_path / "full"
    enough = max(_sizes(tmp_path / "whole").values())
    rows = len(manifest.shards)
    # The manifest, which is written last, does not fit, because of a name that is as long as that.
    said = _with_room_for(enough, lambda: build_index(model, data, full, settings, name="x" * enough))
    assert "manifest.json cannot be written" in said
    assert len(list(full.glob("rows-*.safetensors"))) == rows
    passes = []
    build_index(model, data, full, settings, name="tiny", progress=lambda *seen: passes.append(seen))
    assert passes == [], "nothing was left to do but to write the manifest"
    assert AttributionIndex.open(full).manifest == manifest


@pytest.mark.parametrize("change", ["update", "withdraw"])
def test_a_revision_that_finds_the_disk_full_leaves_the_index_as_it_was(model, data, outputs, tmp_path, change):
    more = [replace(record, id=f"new-{record.id}") for record in records({FOLDED: 9}, seed=3)]
    folder = tmp_path / "index"
    build_index(model, data, folder, hidden_settings(rank=3, rows_per_group=4), name="tiny")

    def revise() -> None:
        if change == "update":
            update_index(folder, model, more)
        else:
            withdraw_provider(folder, model, "ann", data)

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.copytree(folder, tmp_path / "copy")
    limits = sorted({size // 2 for size in _sizes(folder).values() if size})
    for limit in limits:
        said = _with_room_for(limit, revise)
        assert said is not None
        assert "the index is as it was before" in said
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    revise()
    assert AttributionIndex.open(folder).manifest.history


def test_every_way_of_having_no_room_is_told_from_other_errors(tmp_path):
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        assert why_disk_is_full(OSError(number, os.strerror(number)))
    assert why_disk_is_full(OSError(errno.EACCES, "denied")) is None
    assert why_disk_is_full(OSError("without a number")) is None
    missing = tmp_path / "nowhere"
    with pytest.raises(OSError, match="No such file"):
        save_tensors(missing / "x.safetensors", {"a": torch.zeros(3)})
    with pytest.raises(OSError, match="No such file"):
        write_whole(missing / "x.json", b"{}")


def test_a_device_without_room_is_named_by_the_kernel_as_the_limit_is(tmp_path, monkeypatch):
    """/dev/full answers every write with ENOSPC."""
    if not os.path.exists("/dev/full"):  # noqa: PTH110  # only Linux has it; the limit above is tested everywhere
        return
    opened = os.open

    def open_full(path: Path, *_: int) -> int:
        path.symlink_to("/dev/full")  # whoever opens the file again, by its name, is on the full device too
        return opened(path, os.O_WRONLY)

    monkeypatch.setattr(os, "open", open_full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(tmp_path / "x.json", b"{}")
    assert why_disk_is_full(caught.value) == "no space is left on the device"
    assert caught.value.filename == str(tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []
