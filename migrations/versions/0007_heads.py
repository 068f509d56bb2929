"""Put all transactions and seals into one order, and keep signing keys and signed heads.

Why: a head is the Merkle root of everything, in an order that only grows. Transactions and seals are two chains; each
seal now says after which transaction it was written. Why nullable: the seals that are there do not say so. They stand
before all transactions, where no later row can come between them, and keep their hashes.
"""

from __future__ import annotations

from alembic import context

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
