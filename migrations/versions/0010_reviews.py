"""Keep the reviews of an index: which providers share text, and whose text the model shows no sign of having learned.

Why: copied text, and text that the model never saw, are paid for like any other. Nothing said if anybody had looked
before money followed an index. Why a table beside `certificate`: a certificate judges numbers, a review the data behind
them, and a close demands both. Why one text for each: its hash is its name on statements.
"""

from __future__ import annotations

from alembic import context

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
