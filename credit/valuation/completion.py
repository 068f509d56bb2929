"""The end of every build and change: what follows from the sums, and the manifest, which makes the index count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from credit.records import MANIFEST
from credit.storage import write_whole
from credit.valuation.curvature import Curvature, make_curvature
from credit.valuation.examples import EXAMPLES_FILE, IndexedExample, write_listing
from credit.valuation.layers import experts_of
from credit.valuation.manifest import IndexManifest, versioned
from credit.valuation.rows import RowCounts
from credit.valuation.shards import StoredTensors, save_tensors
from credit.valuation.units import FACTORS_FILE


def complete_index(
    folder: Path,
    draft: IndexManifest,
    *,
    counts: RowCounts,
    listed: Iterable[IndexedExample],
    written: Mapping[str, str],
    device: torch.device,
    curvature: Curvature | None = None,
    manifest_file: str = MANIFEST,
) -> IndexManifest:
    """Factorise the curvature, write counts and listing, and last the manifest.

    Args:
        folder: the index.
        draft: the manifest without its files.
        counts: content of each of the R rows.
        listed: every example.
        written: SHA-256 of the files already written: shards, sums, projections.
        device: device that factorises the curvature.
        curvature: the curvature, if it is already factorised.
        manifest_file: name of the manifest.

    Raises:
        ValuationError: the curvature cannot be factorised. No new file counts then.
    """
    files = dict(written)
    version = len(draft.history)
    name = versioned("counts.safetensors", version)
    files[name] = save_tensors(folder / name, counts.tensors())
    if curvature is None:
        # A layer at a time: all sums may be as large as all factors.
        sums = StoredTensors(folder / draft.statistic, device)
        settings = draft.settings
        curvature = make_curvature(settings.curvature, sums, draft.examples, settings.damping, experts_of(draft.layers))
    if draft.settings.curvature == "fisher":  # the others are quick to make again from the sums
        name = versioned(FACTORS_FILE, version)
        files[name] = save_tensors(folder / name, curvature.factors)
    name = versioned(EXAMPLES_FILE, version)
    files[name] = write_listing(folder / name, listed)
    manifest = replace(draft, files=files)
    write_whole(folder / manifest_file, manifest.to_json().encode())
    return manifest
