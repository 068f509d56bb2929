"""Keep the identities of calls and the spans of traces, and the line of each output.

Why: one call was paid twice when its spans lay in two files, or when two loggers told of it. Ids were compared within a
file only, and the ledger knew none but the logger's own. Outputs of the first release have no such ids: their logger's
id still tells them, and reading their files again adds what is missing.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    script = Path(__file__).with_suffix(".sql").read_text("utf-8")
    script += "ALTER TABLE output ADD COLUMN line INTEGER;\n"
    if connection.dialect.name == "postgresql":
        for ours, theirs in ((") STRICT;", ");"), (" INTEGER", " BIGINT"), (" TEXT", ' TEXT COLLATE "C"')):
            script = script.replace(ours, theirs)
    for statement in script.split(";\n")[:-1]:
        # Without parameters, so that the driver reads no % as a placeholder.
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
