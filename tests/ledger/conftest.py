"""A ledger for tests that leave nothing behind, so that they can share one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection

from credit.ledger.database import Ledger
from tests.ledger import samples


@pytest.fixture(scope="module")
def module_ledger(shared_database: Callable[..., str]) -> Iterator[Ledger]:
    """A fresh ledger that lives as long as the test module."""
    with Ledger.open(shared_database()) as opened:
        yield opened


@pytest.fixture
def conn(module_ledger: Ledger) -> Iterator[Connection]:
    """A transaction in an empty ledger, undone after the test."""
    with samples.undone(module_ledger) as opened:
        yield opened
