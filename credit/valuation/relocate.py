"""Loads the models that an index was built with, wherever they are now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from credit.errors import MismatchError, ValuationError
from credit.valuation.manifest import Manifest
from credit.valuation.model import LanguageModel, load_model


def load_models(
    folder: Path, manifests: Sequence[Manifest], moved: Sequence[Path], *, dtype: str, device: str
) -> list[LanguageModel]:
    """Load the language model of each manifest, in their order, from where it was or to where it was moved.

    Args:
        folder: the index, for messages.
        manifests: of the index's own model, of its further checkpoints, or of all of them.
        moved: where those models are now that were moved, in any order: each is known by its weights.
        dtype: see `load_model`.
        device: see `load_model`.

    Raises:
        ValuationError: a model is not there any more.
        MismatchError: it is another, or one that the index was not built with was given.
    """
    wanted = {manifest.model_sha256 for manifest in manifests}
    found: dict[str, LanguageModel] = {}
    for path in moved:
        model = load_model(path, dtype=dtype, device=device)
        if model.model_sha256 not in wanted:
            raise MismatchError(f"{model.location} is not the model that {folder} was built with")
        found[model.model_sha256] = model
    for manifest in manifests:
        if manifest.model_sha256 in found:
            continue
        place = Path(manifest.model_path)
        if not place.is_dir():
            raise ValuationError(
                f"{place}, a model that {folder} was built with, is not there any more; say where it was moved with "
                "--model DIR, for each that was"
            )
        model = load_model(place, dtype=dtype, device=device)
        if model.model_sha256 != manifest.model_sha256:
            raise MismatchError(f"{model.location} is not the model that {folder} was built with; it has changed")
        found[manifest.model_sha256] = model
    return [found[manifest.model_sha256] for manifest in manifests]
