"""Keep how far each log file has been read, and names in logs that stand for a model.

Why: a run over known files cost as much as most of the first one, because nothing said what had been read. Why aliases
in the ledger: they decide which outputs are logged, and so whose data is paid for them.
"""

from __future__ import annotations

from alembic import context

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
