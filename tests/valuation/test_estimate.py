from __future__ import annotations

import pytest
import torch

from credit.errors import ValuationError
from credit.valuation import AttributionIndex, IndexSettings, build_index, estimate
from credit.valuation import build as build_module
from credit.valuation.estimate import Needs, build_needs, check_needs
from credit.valuation.layers import LayerShape
from credit.valuation.projection import random_projections

SHAPES = tuple(LayerShape(f"l{i}", 4096, 4096) for i in range(24))


def test_needs_are_those_worked_out_by_hand():
    projections = random_projections((LayerShape("l", 400, 200),), rank=64, seed=0)
    needs = build_needs(1000, (LayerShape("l", 400, 200),), projections, IndexSettings(rank=64), 2**30)
    fisher = 4096**2 * 4
    sides = 64 * (400 + 200) * 4
    assert needs.gradient == 4096
    assert needs.disk_bytes == 1000 * 4096 * 4 + sides + 3 * fisher
    assert needs.memory_bytes == sides + 8 * fisher  # the factor beside what factorising it takes
    many = build_needs(1000, SHAPES, random_projections(SHAPES, rank=64, seed=0), IndexSettings(rank=64), 2**28)
    assert many.memory_bytes == 24 * (64 * 2 * 4096 * 4) + 24 * fisher + 7 * fisher  # more than a shard of 2**28
    small = IndexSettings(rank=64, curvature="ekfac", rows_dtype="int8")
    assert build_needs(1000, (LayerShape("l", 400, 200),), projections, small, 2**20).disk_bytes < needs.disk_bytes / 20


@pytest.mark.parametrize("curvature", ["none", "fisher", "ekfac"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_the_estimate_of_disk_is_what_the_index_takes(model, data, out, curvature, dtype, monkeypatch):
    seen: list[Needs] = []
    monkeypatch.setattr(build_module, "check_needs", lambda needs, _folder, _device: seen.append(needs))
    settings = IndexSettings(rank=8, curvature=curvature, rows_dtype=dtype)
    build_index(model, data, out, settings, name="tiny")
    manifest = AttributionIndex.open(out).manifest
    tensors = sum((out / name).stat().st_size for name in manifest.files if name.endswith(".safetensors"))
    widened = 2 if dtype == "fp32" or curvature != "none" else 1  # this model is float64, which doubles what is kept
    assert 0.3 * seen[0].disk_bytes < tensors < widened * seen[0].disk_bytes + 40_000


def test_what_cannot_fit_is_refused_with_the_option_that_would_make_it_fit(tmp_path, monkeypatch):
    huge = Needs(1, 10**18, 0)
    with pytest.raises(ValuationError, match=r"1000000\.0 TB of disk.*--rows-dtype int8"):
        check_needs(huge, tmp_path, torch.device("cpu"))
    monkeypatch.setattr(estimate, "_available_memory", lambda _device: 10**9)
    with pytest.raises(ValuationError, match=r"2\.0 GB of memory on cpu.*--curvature ekfac"):
        check_needs(Needs(1, 0, 2 * 10**9), tmp_path, torch.device("cpu"))
    check_needs(Needs(1, 0, 10**8), tmp_path, torch.device("cpu"))
