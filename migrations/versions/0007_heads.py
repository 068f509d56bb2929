"""Put all transactions and seals into one order, and keep signing keys and signed heads.

Why: a head is the Merkle root of everything, in an order that only grows. Transactions and seals are two chains; each
seal now says after which transaction it was written. Why nullable: the seals that are there do not say so. They stand
before all transactions, where no later row can come between them, and keep their hashes.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    sqlite = connection.dialect.name == "sqlite"
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n")[:-1]:
        said = statement
        if not sqlite:
            for ours, theirs in ((") STRICT", ")"), (" INTEGER", " BIGINT"), (" TEXT", ' TEXT COLLATE "C"')):
                said = said.replace(ours, theirs)
        # Without parameters, so that the driver reads no % as a placeholder.
        connection.exec_driver_sql(said, execution_options={"no_parameters": True})
