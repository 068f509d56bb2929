"""Let terms name the channel by which a provider is paid.

Why: a close paid amounts that the channel could not carry, such as a part of a forint, and they waited for ever. Why a
column that can be empty: without a channel everything is paid, as before, and old rows keep their seals.
"""

from __future__ import annotations

from alembic import context

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["run_sql_beside"](__file__)
