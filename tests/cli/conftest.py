from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.helpers import Command
from tests.pipeline.samples import inputs, make_on_engine, new_site, one_thread, pristine, site

__all__ = ["inputs", "make_on_engine", "new_site", "one_thread", "pristine", "site"]


@pytest.fixture
def credit(database_url: str, tmp_path: Path) -> Command:
    """A ledger with one provider, ann."""
    command = Command(database_url, tmp_path)
    command("providers add ann Ann")
    return command
