"""Add the acceptances of red flags in payment details.

Why a table: a payout with a red flag waits until somebody accepts it by name, and the next export must know of that.
Why it refers to `personal_event`: an acceptance is of one version of the details, and outlives its erasure.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE red_flag_acceptance (
  id INTEGER NOT NULL CONSTRAINT ck_red_flag_acceptance_id CHECK (id >= 1),
  provider_id INTEGER NOT NULL,
  sign TEXT NOT NULL CONSTRAINT ck_red_flag_acceptance_sign CHECK (length(sign) >= 1),
  subject TEXT NOT NULL,
  details_id INTEGER NOT NULL,
  accepted TEXT NOT NULL CONSTRAINT ck_red_flag_acceptance_accepted CHECK (length(accepted) >= 1),
  recorded_at TEXT NOT NULL
    CONSTRAINT ck_red_flag_acceptance_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_red_flag_acceptance PRIMARY KEY (id),
  CONSTRAINT fk_red_flag_acceptance_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id),
  CONSTRAINT fk_red_flag_acceptance_details_id FOREIGN KEY(details_id) REFERENCES personal_event (id)
) STRICT
"""
INDEX = "CREATE INDEX ix_red_flag_acceptance_provider_id ON red_flag_acceptance (provider_id)"


def upgrade() -> None:
    table = TABLE
    if op.get_bind().dialect.name == "postgresql":
        for ours, theirs in ((") STRICT", ")"), (" INTEGER", " BIGINT"), (" TEXT", ' TEXT COLLATE "C"')):
            table = table.replace(ours, theirs)
    for statement in (table, INDEX):
        op.get_bind().exec_driver_sql(statement, execution_options={"no_parameters": True})
