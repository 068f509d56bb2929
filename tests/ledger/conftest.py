"""A ledger for tests that leave nothing behind, so that they can share one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection

from credit.ledger.database import Ledger
from tests.ledger import samples
from tests.ledger.tampering import undone, unguarded


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


@pytest.fixture
def populated_url(shared_database: Callable[..., str]) -> str:
    """The URL of a fresh ledger with something in every table."""
    return shared_database(holding=samples.populate)


@pytest.fixture
def populated(populated_url: str) -> Iterator[Ledger]:
    """A fresh ledger with something in every table."""
    with Ledger.open(populated_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def behind(shared_database: Callable[..., str]) -> Iterator[Connection]:
    """A transaction behind the back of a ledger with something in every table."""
    with unguarded(shared_database(holding=samples.populate), undo=True) as opened:
        yield opened


@pytest.fixture
def raw(behind: Connection) -> Iterator[Connection]:
    """The same, undone after the test."""
    with undone(behind) as opened:
        yield opened
