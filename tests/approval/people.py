"""Two people at one ledger, each under a name and, on PostgreSQL, under a database role of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import sqlalchemy as sa

from credit.ledger.database import Ledger
from tests.ledger import samples

NOW = datetime(2026, 10, 5, 12, 30, tzinfo=UTC)
OCTOBER = "2026-10"


def url_of(url: str, name: str) -> str:
    """Return the URL of a ledger for a person: on PostgreSQL with a role of that name, which is made if need be."""
    if not url.startswith("postgresql"):
        return url
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as conn:
        if not conn.execute(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name}).scalar():
            conn.exec_driver_sql(f"CREATE ROLE {name} LOGIN SUPERUSER")
    engine.dispose()
    return sa.make_url(url).set(username=name, password=None).render_as_string(hide_password=False)


@contextmanager
def two_people(url: str) -> Iterator[tuple[Ledger, Ledger]]:
    """Open a ledger with providers and an October for anna, who proposes, and ben, who approves."""
    with Ledger.open(url_of(url, "anna"), actor="anna") as anna, Ledger.open(url_of(url, "ben"), actor="ben") as ben:
        with anna.write() as conn:
            samples.add_providers(conn)
        yield anna, ben
