from __future__ import annotations

from pathlib import Path

import pytest

from credit.ledger.database import Ledger
from tests.payments.samples import know_details, owe


@pytest.fixture
def owing(ledger: Ledger) -> Ledger:
    owe(ledger)
    know_details(ledger)
    return ledger


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "payments.out"
