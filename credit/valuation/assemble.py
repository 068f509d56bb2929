"""The last step of every build and revision: what is left to write, and the manifest, which makes it count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from credit.storage import write_whole
from credit.valuation.curvature import Curvature, DenseFisher, make_curvature
from credit.valuation.examples import EXAMPLES_FILE, IndexedExample, write_listing
from credit.valuation.manifest import MANIFEST, Manifest
from credit.valuation.rows import RowCounts
from credit.valuation.shards import StoredTensors, save_tensors


def versioned(name: str, version: int) -> str:
    """Name of a file of a revision: version 0 is the first build; later ones never overwrite what still counts."""
    stem, _, suffix = name.partition(".")
    return name if version == 0 else f"{stem}.v{version}.{suffix}"


def complete_index(
    folder: Path,
    draft: Manifest,
    *,
    counts: RowCounts,
    listed: Iterable[IndexedExample],
    written: Mapping[str, str],
    device: torch.device,
    curvature: Curvature | None = None,
    manifest_file: str = MANIFEST,
) -> Manifest:
    """Factorise the curvature, write counts and listing, and then the manifest, in one rename.

    Args:
        folder: the index.
        draft: the manifest but for its files.
        counts: how much is in each of the R rows.
        listed: every example.
        written: files that are written already, with their SHA-256: shards, statistic, projections.
        device: where the curvature is factorised.
        curvature: the curvature, if it is factorised already.
        manifest_file: where the manifest is written; what it replaces counts no more.

    Raises:
        ValuationError: the curvature cannot be factorised; nothing counts then.
    """
    files = dict(written)
    version = len(draft.history)
    name = versioned("counts.safetensors", version)
    files[name] = save_tensors(folder / name, counts.tensors())
    if curvature is None:
        sums = StoredTensors(
            folder / draft.statistic, device
        )  # a layer at a time: all sums may be as large as all factors
        curvature = make_curvature(draft.settings.curvature, sums, draft.examples, draft.settings.damping)
    if isinstance(curvature, DenseFisher):  # the only one that is slow to make again
        name = versioned("factors.safetensors", version)
        files[name] = save_tensors(folder / name, curvature.tensors())
    name = versioned(EXAMPLES_FILE, version)
    files[name] = write_listing(folder / name, listed)
    manifest = replace(draft, files=files)
    write_whole(folder / manifest_file, manifest.to_json().encode())
    return manifest
