"""Keep two pseudonyms of each output: of its user, and of what was asked and said.

Why: one user can ask for one answer a thousand times, and for every answer the model's provider of text is paid. Limits
on that need to know the same user and the same text again, and nothing more about them: both are keyed hashes. Why
nullable: outputs that are there have neither, and keep their hashes.
"""

from __future__ import annotations

from alembic import context

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
