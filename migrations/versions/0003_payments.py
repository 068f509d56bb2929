"""Add payout batches, the events of payouts, and personal data in a table of its own that can be erased.

The SQL lies beside this file, frozen as that of 0001 is. A payout's status now follows its events; the guard of the
journal's headers no longer asks for keys that its other rules already keep free, which small transactions feel.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    script = Path(__file__).with_name(f"{revision}_{connection.dialect.name}.sql").read_text("utf-8")
    for statement in script.strip().split("\n\n"):
        # Without parameters, so that the driver reads no % as a placeholder.
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def downgrade() -> None:
    raise NotImplementedError("the ledger only goes forward; restore a backup instead")
