"""Let a payment that was paid come back: a payout may fail after it was paid, in the same batch.

The SQL lies beside this file, frozen as that of 0001 is.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0011"
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
