"""What bf16 and int8 rows may cost: a bound for every product, and the error of influence and support."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.row_precision import errors, row_bytes, store_otherwise
from credit.valuation import AttributionIndex, IndexSettings, build_index, load_model
from credit.valuation.shards import SCALE_BLOCK, encode_rows, read_rows, save_tensors
from tests.models import hidden_settings, records, save_tiny_model
from tests.valuation.conftest import FOLDED, LONE, SINGLE, make_output

# Median over outputs of the relative error, in norm over all groups. Single outputs may be off by more, where groups
# nearly cancel.
BOUNDS = {"bf16": 0.01, "int8": 0.03}
HEAD_BOUNDS = {"bf16": 0.01, "int8": 0.015}


def row_bound(rows: Tensor, query: Tensor, dtype: str) -> Tensor:
    """The most by which rounding can move the products of rows (R, D) with a query (D,): (R,).

    bfloat16 rounds to nearest at 8 bits, so that an entry is off by 2^-8 of itself; int8 by half of its block's scale,
    which is itself in bfloat16.
    """
    rows, query = rows.double().abs(), query.double().abs()
    if dtype == "bf16":
        return rows @ query * 2.0**-8
    blocks = zip(rows.split(SCALE_BLOCK, 1), query.split(SCALE_BLOCK), strict=True)
    return sum(block.amax(1) * (1 + 2.0**-8) / 127 / 2 * part.sum() for block, part in blocks)


def restored_rows(stored: dict[str, Tensor]) -> Tensor:
    """What rows of int8 stand for: each entry times the scale of its block."""
    scales = stored["l|scale"].double().repeat_interleave(SCALE_BLOCK, 1)
    return stored["l"].double() * scales[:, : stored["l"].shape[1]]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 6),
    st.integers(1, 40) | st.sampled_from([63, 64, 65, 128, 200]),
    st.sampled_from([1e-20, 1e-3, 1.0, 1e6]),
    st.sampled_from([0.0, 1.0, 6.0]),
)
def test_no_product_with_a_stored_row_is_off_by_more_than_its_rounding(seed, height, width, size, tail):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(height, width, generator=generator) * size
    rows *= torch.exp(tail * torch.randn(height, width, generator=generator))  # heavy tails are int8's worst case
    rows[0] = 0
    query = torch.randn(width, generator=generator).double()
    exact = rows.double() @ query
    for dtype in BOUNDS:
        bound = row_bound(rows, query, dtype)
        stored = encode_rows({"l": rows}, dtype)
        restored = stored["l"].double()
        if dtype == "int8":
            assert int(stored["l"].abs().max()) <= 127
            restored = restored_rows(stored)
        error = (restored @ query - exact).abs()
        assert (error <= bound * (1 + 1e-5) + 1e-38).all(), f"{dtype}: {error.tolist()} beyond {bound.tolist()}"


@pytest.mark.parametrize("width", [7, 64, 150, 192])
@pytest.mark.parametrize("height", [0, 5])
def test_rows_are_read_as_they_were_stored(tmp_path, width, height):
    rows = {"l": torch.randn(height, width, generator=torch.Generator().manual_seed(0))}
    for dtype in ("fp32", "bf16", "int8"):
        stored = encode_rows(rows, dtype)
        save_tensors(tmp_path / dtype, stored)
        ((_, read),) = read_rows(tmp_path / dtype, ["l"], torch.device("cpu"))
        expected = restored_rows(stored).float() if dtype == "int8" else stored["l"].float()
        assert torch.equal(read, expected)


def test_entries_out_of_all_scale_cost_no_block_but_their_own_its_precision():
    """As in a head's row, where tokens of every text stand beside some that hardly any has."""
    rows = torch.randn(3, 64 * 20, generator=torch.Generator().manual_seed(0))
    rows[:, 64 * 7 : 64 * 8] *= 1e4
    off = (restored_rows(encode_rows({"l": rows}, "int8")) - rows).view(3, -1, 64).norm(dim=2)
    assert (off / rows.view(3, -1, 64).norm(dim=2)).max() < 0.015


@pytest.mark.parametrize(
    ("kind", "settings_"),
    [
        ("llama", hidden_settings(rank=8, rows_per_group=4)),
        ("gpt2", hidden_settings(rank=8, rows_per_group=None)),
        ("llama", IndexSettings(rank=8, rows_per_group=4)),
        ("gpt2", IndexSettings(rank=8, rows_per_group=None)),
    ],
    ids=["folds", "single rows", "head, folds", "head, single rows"],
)
def test_the_error_of_influence_and_support_is_bounded(tmp_path, kind, settings_):
    model = load_model(save_tiny_model(tmp_path / kind, kind), dtype="fp32", device="cpu")
    data = records({FOLDED: 40, SINGLE: 12, LONE: 1})
    outputs = [make_output(i, "the cat", r.completion) for i, r in enumerate(records({SINGLE: 8}, seed=3))]
    build_index(model, data, tmp_path / "fp32", settings_, name="tiny")
    index = AttributionIndex.open(tmp_path / "fp32")
    # The support of single rows jumps where one crosses the threshold, whatever the precision; at 0 there is no jump.
    floor = 1.0 if settings_.rows_per_group else 0.0
    exact = index.value(model, outputs, noise_floor=floor)
    exact_rows = index.row_influence(model, outputs)
    ready = index.preconditioned(model, outputs)
    (layers,) = (dict(shard) for shard in index.shards(torch.device("cpu")))
    shrinks = {"bf16": 0.6, "int8": 0.4}
    for dtype, bound in (BOUNDS if settings_.layers else HEAD_BOUNDS).items():
        other = store_otherwise(index, tmp_path / dtype, dtype)
        found = errors(exact, other.value(model, outputs, noise_floor=floor))
        off = (other.row_influence(model, outputs) - exact_rows).abs()
        for q in range(len(outputs)):
            most = sum(row_bound(layers[name], ready[name][q], dtype) for name in layers) * index.manifest.scale
            assert (off[q] <= most * (1 + 1e-4)).all(), f"{dtype}: output {q} is off by more than rounding explains"
        assert found.influence.median() < bound, f"{dtype}: influence {found.influence.tolist()}"
        assert found.support.median() < bound, f"{dtype}: support {found.support.tolist()}"
        assert found.influence.max() < 4 * bound
        assert found.support.max() < 10 * bound
        assert found.share < 4 * bound
        assert row_bytes(other) < shrinks[dtype] * row_bytes(index)
        # An index that is built with such rows is the same as one whose rows are stored so afterwards.
        build_index(model, data, tmp_path / f"built-{dtype}", replace(settings_, rows_dtype=dtype), name="tiny")
        assert AttributionIndex.open(tmp_path / f"built-{dtype}").manifest == other.manifest
