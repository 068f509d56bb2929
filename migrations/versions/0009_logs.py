"""Keep how far each log file has been read, and names in logs that stand for a model.

Why: a run over known files cost as much as most of the first one, because nothing said what had been read. Why aliases
in the ledger: they decide which outputs are logged, and so whose data is paid for them.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    script = Path(__file__).with_suffix(".sql").read_text("utf-8")
    if connection.dialect.name == "postgresql":
        for ours, theirs in ((") STRICT;", ");"), (" INTEGER", " BIGINT"), (" TEXT", ' TEXT COLLATE "C"')):
            script = script.replace(ours, theirs)
    for statement in script.split(";\n")[:-1]:
        # Without parameters, so that the driver reads no % as a placeholder.
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
