from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from credit.valuation import AttributionIndex, build_index
from credit.valuation.curvature import make_curvature
from credit.valuation.shards import StoredTensors, read_rows, save_tensors
from tests.models import hidden_settings


@pytest.fixture
def stored(tmp_path: Path) -> tuple[dict[str, Tensor], StoredTensors]:
    generator = torch.Generator().manual_seed(0)
    rows = {f"l{i}": torch.randn(20, 6, generator=generator) for i in range(4)}
    tensors = {name: r.mT @ r for name, r in rows.items()}
    save_tensors(tmp_path / "sums.safetensors", tensors)
    return tensors, StoredTensors(tmp_path / "sums.safetensors", torch.device("cpu"))


def test_stored_tensors_are_those_that_were_saved(stored):
    tensors, on_disk = stored
    assert dict(on_disk).keys() == tensors.keys()
    assert all(torch.equal(on_disk[name], tensor) for name, tensor in tensors.items())
    assert len(on_disk) == 4
    assert "l0" in on_disk
    assert "l9" not in on_disk
    with pytest.raises(KeyError, match="l9"):
        on_disk["l9"]


def test_factorising_holds_the_sums_of_a_layer_or_two_whatever_their_number(stored, monkeypatch):
    _, on_disk = stored
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0
    read = StoredTensors.__getitem__

    def counted(self, name: str) -> Any:
        nonlocal most
        tensor = read(self, name)
        alive.append(weakref.ref(tensor))
        most = max(most, sum(ref() is not None for ref in alive))
        return tensor

    monkeypatch.setattr(StoredTensors, "__getitem__", counted)
    make_curvature("fisher", on_disk, 20, 0.1)
    assert len(alive) == 4
    assert most == 2


def test_valuing_holds_the_rows_of_a_layer_or_two_however_many_shards_there_are(
    model, data, outputs, out, write_limits, monkeypatch
):
    write_limits(shard_bytes=1)
    build_index(model, data, out, hidden_settings(rank=3, rows_per_group=4), name="tiny")
    index = AttributionIndex.open(out)
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def counted(*where: Any) -> Any:
        nonlocal most
        for name, rows in read_rows(*where):
            alive.append(weakref.ref(rows))
            most = max(most, sum(ref() is not None for ref in alive))
            yield name, rows

    monkeypatch.setattr("credit.valuation.index.read_rows", counted)
    index.value(model, outputs)
    assert len(index.manifest.shards) > 5
    assert len(alive) == len(index.manifest.shards) * len(index.manifest.layers)
    assert most == 2


def test_a_curvature_made_from_stored_sums_is_the_one_made_from_those_in_memory(stored):
    tensors, on_disk = stored
    gradients = torch.randn(3, 6)
    ours, truth = (make_curvature("fisher", sums, 20, 0.1).precondition("l2", gradients) for sums in (on_disk, tensors))
    assert torch.equal(ours, truth)
