"""Create the tables of approvals: what needs one, proposals with the personal data in them, and decisions.

Why tables of their own: an approval is a fact like any other, appended and sealed. The triggers, which every upgrade
installs anew, hold the guarded tables against them.
"""

from __future__ import annotations

from alembic import context

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
