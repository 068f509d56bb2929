"""Let prompts and completions be deleted once their outputs are valued.

Why columns and no table of texts: an output and its texts are read together everywhere, and a purge is rare. Why a
salt: the content hash stays for ever, and without a salt anybody could try texts on it. Outputs from before it have
none, so their hashes stay open to guesses after a purge.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

PURGE = """
CREATE TABLE purge (
  id INTEGER NOT NULL CONSTRAINT ck_purge_id CHECK (id >= 1),
  before TEXT NOT NULL CONSTRAINT ck_purge_before CHECK (before LIKE '____-__-__'),
  outputs INTEGER NOT NULL CONSTRAINT ck_purge_outputs CHECK (outputs >= 1),
  reason TEXT NOT NULL CONSTRAINT ck_purge_reason CHECK (length(reason) >= 1),
  recorded_at TEXT NOT NULL CONSTRAINT ck_purge_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_purge PRIMARY KEY (id)
) STRICT
"""
SALT = "ALTER TABLE output ADD COLUMN salt TEXT"
OF_OUTPUT = "ALTER TABLE output ADD COLUMN purge_id INTEGER CONSTRAINT fk_output_purge_id REFERENCES purge (id)"


def upgrade() -> None:
    for statement in (PURGE, SALT, OF_OUTPUT):
        sql = statement
        if op.get_bind().dialect.name == "postgresql":
            for ours, theirs in ((") STRICT", ")"), (" INTEGER", " BIGINT"), (" TEXT", ' TEXT COLLATE "C"')):
                sql = sql.replace(ours, theirs)
        # Without parameters, so that the driver takes a `%` in a statement as it is.
        op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})
