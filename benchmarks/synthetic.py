"""Indexes in the engine's own format with made-up rows: as many groups, rows and examples as a benchmark wants.

Opening and valuing then run the real code on them. The rows are random numbers, since no step of the work depends on
their values; a curvature is that of rows with unit variance.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from benchmarks.models import HIDDEN
from credit.records import PPM, Group
from credit.valuation.completion import complete_index
from credit.valuation.examples import IndexedExample
from credit.valuation.language_model import LanguageModel
from credit.valuation.layers import choose_layers
from credit.valuation.manifest import PROJECTIONS_FILE, IndexManifest, IndexSettings
from credit.valuation.projection import projected_shape, projections_to_tensors, random_projections
from credit.valuation.rows import GroupLayout, RowCounts
from credit.valuation.shards import encode_rows, plan_shards, save_tensors


def write_index(
    folder: Path,
    model: LanguageModel,
    *,
    rank: int,
    groups: int,
    rows: int,
    examples: int,
    curvature: str = "none",
    dtype: str = "fp32",
) -> IndexManifest:
    """Write an index of `groups` groups with `rows` rows each, `examples` training examples spread evenly over them.

    With examples == groups · rows it is a per-example store. The curvature is `none` or `fisher`.
    """
    folder.mkdir(parents=True)
    layers = choose_layers(model.module, HIDDEN)
    projections = random_projections(layers.shapes, rank=rank, seed=0)
    width = {s.name: math.prod(projected_shape(s, projections[s.name])) for s in layers.shapes}
    written = {PROJECTIONS_FILE: save_tensors(folder / PROJECTIONS_FILE, projections_to_tensors(projections))}
    generator = torch.Generator().manual_seed(0)
    shards = []
    for number, (low, high) in enumerate(plan_shards(range(rows, groups * rows + 1, rows), sum(width.values()))):
        name = f"rows-{number:05d}.safetensors"
        tensors = {layer: torch.randn(high - low, d, generator=generator) for layer, d in width.items()}
        written[name] = save_tensors(folder / name, encode_rows(tensors, dtype))
        shards.append(name)
    statistic = "curvature-00000.safetensors"
    sums = {layer: examples * torch.eye(d) for layer, d in width.items()} if curvature == "fisher" else {}
    written[statistic] = save_tensors(folder / statistic, sums)
    counts = np.full(groups * rows, examples // (groups * rows), dtype=np.int64)
    counts[: examples % (groups * rows)] += 1
    per_group = counts.reshape(groups, rows).sum(1)
    draft = IndexManifest(
        name="synthetic",
        model_path=str(model.path),
        model_sha256=model.model_sha256,
        tokenizer_sha256=model.tokenizer_sha256,
        data_sha256="0" * 64,
        fitted_sha256="0" * 64,
        dtype="float32",
        settings=IndexSettings(
            rank=rank,
            projection="random",
            curvature=curvature,
            damping=0.1,
            layers=HIDDEN,
            rows_per_group=rows,
            rows_dtype=dtype,
        ),
        max_length=model.max_length,
        layers=layers.shapes,
        skipped=layers.skipped,
        groups=tuple(
            GroupLayout(
                Group(f"p{number:05d}", "all"), number * rows, (number + 1) * rows, size, size * PPM, size * PPM
            )
            for number, size in enumerate(per_group.tolist())
        ),
        shards=tuple(shards),
        statistic=statistic,
        sizes=0.0,
        excluded=(),
        checkpoints=(),
        history=(),
        files={},
    )
    row_of = np.repeat(np.arange(groups * rows), counts)
    listed = (IndexedExample(f"e{number:08d}", int(row), 1, "0" * 16) for number, row in enumerate(row_of))
    return complete_index(
        folder, draft, counts=RowCounts.unshared(counts), listed=listed, written=written, device=model.device
    )
