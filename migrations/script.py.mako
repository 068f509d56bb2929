"""${message}

The SQL lies beside this file, in the words of SQLite.
"""

from __future__ import annotations

from alembic import context

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
