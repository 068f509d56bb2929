"""A month that was valued, ready to be reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from credit.ledger.database import Ledger
from tests.reporting import ledgers


@pytest.fixture
def books(tmp_path: Path) -> Path:
    return tmp_path / "books"


@pytest.fixture
def month(ledger: Ledger, books: Path) -> Ledger:
    """October with four outputs in two score books."""
    ledgers.add(ledger)
    ledgers.value(ledger, books, ledgers.MONTH[:3])
    ledgers.value(ledger, books, ledgers.MONTH[3:])
    return ledger
