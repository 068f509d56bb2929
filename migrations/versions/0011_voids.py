"""Keep payouts that must never be paid.

Why: a payout approved by mistake could only be held with its provider, for ever. Why a table and no status: a status
would have to be added to the check of a table that SQLite can only copy, and a void needs no batch, as events do.
"""

from __future__ import annotations

from alembic import context

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
