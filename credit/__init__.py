"""Says whose training data a language model's answers drew on, and pays for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from credit.version import VERSION

if TYPE_CHECKING:
    from credit.api import Toolkit

__all__ = ["__version__", "open"]

__version__ = VERSION


def open(  # noqa: A001  # read as `credit.open`
    database: str = "sqlite:///credit.db",
    data_dir: str | Path = "credit-data",
    *,
    actor: str | None = None,
    user_key: str | Path | None = None,
) -> Toolkit:
    """Return the toolkit for a ledger, which may not be there yet. Nothing is opened before it is used.

    Args:
        database: the ledger, `sqlite:///FILE` or `postgresql://...`.
        data_dir: folder of the ledger's files.
        actor: who asks for changes, on record with everything written; None for the system's `user@host`.
        user_key: file of the key behind the pseudonyms of users; None for that of the data folder.
    """
    from credit.api import Toolkit
    from credit.pipeline.workspace import Workspace

    return Toolkit(Workspace(database, Path(data_dir), actor), Path(user_key) if user_key else None)
