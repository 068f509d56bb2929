"""Name the actor of each transaction and of each seal.

Why: the ledger said what happened and when, never who did it. Both chains get the name inside their hashes, the journal
for transactions, the seals for all other rows. Why nullable: the rows that are there have no actor on record, and none
can be made up for them; they keep their hashes. Triggers refuse every later row without one.
"""

from __future__ import annotations

from alembic import context

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
