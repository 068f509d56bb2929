"""What bf16 and int8 rows may cost: a bound for every product, and the error of influence and support."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.row_precision import errors, row_bytes, store_otherwise
from credit.valuation import AttributionIndex, build_index, load_model
from credit.valuation.store import encode_rows, read_rows, save_tensors
from tests.models import hidden_settings, records, save_tiny_model
from tests.valuation.conftest import FOLDED, LONE, SINGLE, make_output

# Median over outputs of the relative error, in norm over all groups. Single outputs may be off by more: where groups
# nearly cancel, or where an example lies at the threshold of support.
BOUNDS = {"bf16": 0.01, "int8": 0.03}


def row_bound(rows, query, dtype):
    """The most by which rounding can move the products of rows (R, D) with a query (D,): (R,).

    bfloat16 rounds to nearest at 8 bits, so that an entry is off by 2^-8 of itself; int8 by half of the row's scale.
    """
    rows, query = rows.double().abs(), query.double().abs()
    if dtype == "bf16":
        return rows @ query * 2.0**-8
    return rows.amax(1) / 127 / 2 * query.sum()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 6),
    st.integers(1, 40),
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
            restored = restored * stored["l|scale"].double()[:, None]
        error = (restored @ query - exact).abs()
        assert (error <= bound * (1 + 1e-5) + 1e-38).all(), f"{dtype}: {error.tolist()} beyond {bound.tolist()}"


def test_rows_are_read_as_they_were_stored(tmp_path):
    rows = {"l": torch.randn(5, 7, generator=torch.Generator().manual_seed(0))}
    for dtype in ("fp32", "bf16", "int8"):
        stored = encode_rows(rows, dtype)
        save_tensors(tmp_path / dtype, stored)
        ((_, read),) = read_rows(tmp_path / dtype, ["l"], torch.device("cpu"))
        expected = stored["l"].float() * (stored["l|scale"][:, None] if dtype == "int8" else 1.0)
        assert torch.equal(read, expected)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("rows_per_group", [4, None], ids=["folds", "single rows"])
def test_the_error_of_influence_and_support_is_bounded(tmp_path, kind, rows_per_group):
    model = load_model(save_tiny_model(tmp_path / kind, kind), dtype="fp32", device="cpu")
    data = records({FOLDED: 40, SINGLE: 12, LONE: 1})
    outputs = [make_output(i, "the cat", r.completion) for i, r in enumerate(records({SINGLE: 8}, seed=3))]
    build_index(model, data, tmp_path / "fp32", hidden_settings(rank=8, rows_per_group=rows_per_group), name="tiny")
    index = AttributionIndex.open(tmp_path / "fp32")
    exact = index.value(model, outputs)
    exact_rows = index.row_influence(model, outputs)
    ready = index.preconditioned(model, outputs)
    (layers,) = (dict(shard) for shard in index.shards(torch.device("cpu")))
    shrinks = {"bf16": 0.6, "int8": 0.4}
    for dtype, bound in BOUNDS.items():
        other = store_otherwise(index, tmp_path / dtype, dtype)
        found = errors(exact, other.value(model, outputs))
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
        settings_ = hidden_settings(rank=8, rows_per_group=rows_per_group, rows_dtype=dtype)
        build_index(model, data, tmp_path / f"built-{dtype}", settings_, name="tiny")
        assert AttributionIndex.open(tmp_path / f"built-{dtype}").manifest == other.manifest
