"""Let prompts and completions be deleted once their outputs are valued.

Why columns and no table of texts: an output and its texts are read together everywhere, and a purge is rare. Why a
salt: the content hash stays for ever, and without a salt anybody could try texts on it. Outputs from before it have
none, so their hashes stay open to guesses after a purge.
"""

from __future__ import annotations

from alembic import context

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
