"""Keep the identities of calls and the spans of traces, and the line of each output.

Why: one call was paid twice when its spans lay in two files, or when two loggers told of it. Ids were compared within a
file only, and the ledger knew none but the logger's own. Outputs of the first release have no such ids: their logger's
id still tells them, and reading their files again adds what is missing.
"""

from __future__ import annotations

from alembic import context

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
