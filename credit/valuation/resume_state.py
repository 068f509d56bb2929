"""What a build that was stopped finds again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from credit.errors import MismatchError
from credit.storage import write_whole

STATE = "build.json"

SAVE_SECONDS = 120.0
"""Seconds of work after which a build saves its state, at the end of the unit that it is at."""


@dataclass(frozen=True, slots=True)
class BuildState:
    """How far a build has come. What it names lies in the index's folder, whole.

    Attributes:
        fingerprint: of the index that is being built.
        projections: SHA-256 of the projections, once they are made.
        sums: file of the curvature's sums over the examples of all units that are done.
        surveyed: units whose examples are in `sums` although their rows are not written: the first of two passes.
        shards: files of rows that are written, with their SHA-256.
        excluded: ids of the examples in these units that are left out, because their gradient is not finite.
        sizes: sum of what the examples of these shards were divided by.
    """

    fingerprint: str
    projections: str | None = None
    sums: str | None = None
    surveyed: int = 0
    shards: Mapping[str, str] = field(default_factory=dict)
    excluded: Sequence[str] = ()
    sizes: float = 0.0

    @classmethod
    def open(cls, folder: Path, fingerprint: str) -> Self:
        """Read the state of the build in `folder`, or begin one, of which nothing is written yet.

        Raises:
            MismatchError: the folder holds a part of another index.
        """
        path = folder / STATE
        if not path.is_file():
            return cls(fingerprint)
        state = cls(**json.loads(path.read_text()))
        if state.fingerprint != fingerprint:
            raise MismatchError(
                f"{folder} holds an unfinished index of another model, other data or other settings; "
                "choose another --out or delete it"
            )
        return state

    def write(self, folder: Path) -> None:
        """Make this the state from which the next run goes on."""
        write_whole(folder / STATE, json.dumps(asdict(self)).encode())
