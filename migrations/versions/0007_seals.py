"""Add seals: a chain of hashes over every row that is not in the journal, those that are there already included.

The SQL lies beside this file, frozen as that of 0001 is. What the rows say is taken as it is at this moment: run
`credit verify` before an upgrade.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

from credit.ledger.frozen_sql import run_frozen_sql
from credit.ledger.seals import seal_rows

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLES = (
    "provider",
    "period",
    "model",
    "attribution_index",
    "index_location",
    "certificate",
    "ingest_file",
    "compute_run",
    "score_book",
    "contract_term",
    "hold",
    "personal_event",
    "fx_rate",
    "account",
    "pool",
    "allocation",
    "reserve",
    "statement",
    "unvalued",
    "payout",
    "payout_batch",
    "payout_event",
)
_ROWS = 1000


def upgrade() -> None:
    connection = op.get_bind()
    run_frozen_sql(connection, __file__, revision)
    for table in _TABLES:
        last: str | int = "" if table == "period" else 0
        while True:
            some = text(f"SELECT * FROM {table} WHERE id > :last ORDER BY id LIMIT {_ROWS}")  # noqa: S608 - names above
            rows = connection.execute(some, {"last": last}).mappings().all()
            if not rows:
                break
            seal_rows(connection, table, rows)
            last = rows[-1]["id"]


def downgrade() -> None:
    raise NotImplementedError("the ledger only goes forward; restore a backup instead")
