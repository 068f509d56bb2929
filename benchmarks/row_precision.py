"""Accuracy of rows in bf16 and int8, against the same rows in fp32, on a really trained model.

An index of SmolLM2-135M and texts of four sources (`tests.known_sources`) is built once, its rows are stored anew in
each dtype, and 16 completions are valued by each. Errors are relative to the fp32 index: of influence and support over
all groups (norm of the difference over the norm, output by output), and the largest change of a group's share of the
effect of an output, which its credits follow.

    python -m benchmarks.row_precision
    python -m benchmarks.row_precision --default --example-length 12      # each text cut into two or three examples
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import Table, describe, environment, save_results
from benchmarks.models import HIDDEN
from credit.records import MANIFEST
from credit.storage import write_whole
from credit.valuation import AttributionIndex, IndexSettings, Valuation, build_index, load_model
from credit.valuation.shards import encode_rows, save_tensors
from tests.known_sources import known_outputs, known_records
from tests.smollm2 import NAME, smollm2

_FISHER = IndexSettings(rank=16, projection="random", curvature="fisher", damping=0.1, layers=HIDDEN)
SETTINGS = (
    IndexSettings(rows_per_group=4),
    replace(_FISHER, rows_per_group=None),
    replace(_FISHER, rows_per_group=4),
    replace(_FISHER, rank=64, rows_per_group=4, curvature="ekfac"),
)


@dataclass(frozen=True)
class Errors:
    """Relative errors of each output, (Q,), and the largest change of a share."""

    influence: Tensor
    support: Tensor
    share: float


def store_otherwise(index: AttributionIndex, folder: Path, dtype: str) -> AttributionIndex:
    """Copy an index with fp32 rows to `folder`, with its rows in another dtype."""
    shutil.copytree(index.folder, folder)
    files = dict(index.manifest.files)
    for shard, layers in zip(index.manifest.shards, index.shards(torch.device("cpu")), strict=True):
        files[shard] = save_tensors(folder / shard, encode_rows(dict(layers), dtype))
    manifest = replace(index.manifest, settings=replace(index.manifest.settings, rows_dtype=dtype), files=files)
    write_whole(folder / MANIFEST, manifest.to_json().encode())
    return AttributionIndex.open(folder)


def errors(exact: Valuation, other: Valuation) -> Errors:
    """Compare two valuations of the same outputs."""

    def relative(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).norm(dim=1) / a.norm(dim=1)

    def shares(valuation: Valuation) -> Tensor:
        earned = valuation.effect().clamp(min=0)
        return earned / earned.sum(1, keepdim=True).clamp(min=1e-300)

    return Errors(
        relative(exact.influence, other.influence),
        relative(exact.support, other.support),
        float((shares(exact) - shares(other)).abs().max()),
    )


def row_bytes(index: AttributionIndex) -> int:
    """Bytes of an index's rows."""
    return sum((index.folder / shard).stat().st_size for shard in index.manifest.shards)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--example-length", type=int, default=256, help="predicted tokens of an example, at most")
    parser.add_argument("--default", action="store_true", help="the default index alone")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    where = environment()
    print(describe(where), flush=True)
    model, records, outputs = load_model(smollm2(), dtype="fp32", device="cpu"), known_records(), known_outputs()
    table = Table(
        "index",
        "rows in",
        "of fp32's bytes",
        "influence, median (largest)",
        "support, median (largest)",
        "share, points",
    )
    rows = []
    for kind in SETTINGS[:1] if options.default else SETTINGS:
        settings = replace(kind, example_length=options.example_length)
        with tempfile.TemporaryDirectory() as scratch:
            build_index(model, records, Path(scratch) / "fp32", settings, name=NAME)
            index = AttributionIndex.open(Path(scratch) / "fp32")
            exact = index.value(model, outputs)
            kept = "a row each" if settings.rows_per_group is None else f"{settings.rows_per_group} rows a group"
            name = f"r{settings.rank} {settings.projection}, {settings.curvature}, {kept}"
            for dtype in ("bf16", "int8"):
                other = store_otherwise(index, Path(scratch) / dtype, dtype)
                found = errors(exact, other.value(model, outputs))
                size = row_bytes(other) / row_bytes(index)
                cells = [f"{e.median():.2%} ({e.max():.2%})" for e in (found.influence, found.support)]
                table.row(name, dtype, f"{size:.2f}", *cells, f"{100 * found.share:.2f}")
                rows.append(
                    {
                        "index": name,
                        "rows": dtype,
                        "bytes": size,
                        "influence": found.influence.tolist(),
                        "support": found.support.tolist(),
                        "share": found.share,
                    }
                )
    if options.save:
        print(save_results("row-precision-smollm2", {"example_length": options.example_length, "rows": rows}, where))


if __name__ == "__main__":
    main()
