"""Create the tables of approvals: what needs one, proposals with the personal data in them, and decisions.

Why tables of their own: an approval is a fact like any other, appended and sealed. The triggers, which every upgrade
installs anew, hold the guarded tables against them.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
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
