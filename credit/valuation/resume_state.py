"""The resume state of an interrupted build."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from credit.errors import MismatchError
from credit.storage import is_left_over, parse_object, write_whole
from credit.valuation.manifest import PROJECTIONS_FILE, is_index_file

STATE_FILE = "build.json"

SAVE_SECONDS = 120.0
"""Seconds between two saves of the state; a build saves at the end of a unit."""


@dataclass(frozen=True, slots=True)
class ResumeState:
    """Progress of a build. The files named here lie in the index's folder, whole.

    Attributes:
        inputs_sha256: identity of the inputs of the unfinished index.
        projections: SHA-256 of the projections; None until they are made.
        sums: file of the curvature's sums over the examples of all finished units.
        surveyed: units finished by the first of two passes, with examples in `sums` but no rows yet.
        shards: written files of rows, with their SHA-256.
        excluded: ids of examples excluded so far.
        sizes: sum of the sizes of these shards' examples, see `weighting`.
    """

    inputs_sha256: str
    projections: str | None = None
    sums: str | None = None
    surveyed: int = 0
    shards: Mapping[str, str] = field(default_factory=dict)
    excluded: Sequence[str] = ()
    sizes: float = 0.0

    @classmethod
    def open(cls, folder: Path, inputs_sha256: str) -> Self:
        """Read the state of the build in `folder`, or return that of a new build.

        Raises:
            MismatchError: the folder holds an unfinished index of other inputs, or a damaged state.
        """
        path = folder / STATE_FILE
        if not path.is_file():
            return cls(inputs_sha256)
        try:
            state = cls(**parse_object(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise MismatchError(f"{path} is damaged ({error}); delete {folder} and build again") from error
        if state.inputs_sha256 != inputs_sha256:
            raise MismatchError(
                f"{folder} holds an unfinished index of another model, other data or other settings; "
                "choose another --out or delete it"
            )
        return state

    def write(self, folder: Path) -> None:
        """Save the state; the next run resumes from it."""
        write_whole(folder / STATE_FILE, json.dumps(asdict(self)).encode())

    def delete(self, folder: Path) -> None:
        """Delete the state: the build is finished."""
        (folder / STATE_FILE).unlink()

    def delete_leftovers(self, folder: Path) -> None:
        """Delete files that an interrupted run wrote after its last save, to make room."""
        counts = {*self.shards, self.sums, PROJECTIONS_FILE if self.projections else None}
        for path in folder.iterdir():
            # Only files of ours: somebody may keep notes in the folder.
            if is_left_over(path.name) or (is_index_file(path.name) and path.name not in counts):
                path.unlink()
