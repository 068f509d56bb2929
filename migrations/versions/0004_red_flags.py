"""Add the acceptances of red flags in payment details.

Why a table: a payout with a red flag waits until somebody accepts it by name, and the next export must know of that.
Why it refers to `personal_event`: an acceptance is of one version of the details, and outlives its erasure.
"""

from __future__ import annotations

from alembic import context

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
