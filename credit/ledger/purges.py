"""Purges: texts of finished outputs go, and all numbers computed from them stay.

A purge empties prompt, messages and completion of each output before a day that was valued or taken out as unvalued,
and deletes the salt of its content hash. The hash itself stays, sealed with the output's file. Without the salt nobody
can match a guess at the text with it. Credits, statements and corrections read numbers alone, so they work as before.
"""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, update

from credit.errors import IntegrityError, LedgerError
from credit.ledger.outputs import changed_outputs, is_unvalued
from credit.ledger.personal_data import keep_erasable
from credit.ledger.schema import output, purge, valuation
from credit.ledger.seals import seal_row
from credit.ledger.sql import insert_records, next_id
from credit.ledger.values import is_storable, utc_text


def purgeable_count(conn: Connection, before: date) -> int:
    """Count the outputs a purge would empty."""
    return int(conn.execute(select(func.count()).select_from(output).where(_purgeable(before))).scalar_one())


def purge_outputs(conn: Connection, before: date, *, reason: str, now: datetime) -> int:
    """Empty the texts of outputs from before a day, and return their number; pending outputs keep theirs.

    The bytes are gone from the database's files only after `Ledger.scrub`.

    Args:
        conn: from `Ledger.write`.
        before: outputs of this day (UTC) and later stay as they are.
        reason: stays on record.
        now: moment of recording.

    Raises:
        LedgerError: the reason is missing, cannot be stored, or repeats personal data; or the day is still to come.
        IntegrityError: an output was altered.
    """
    if not reason.strip() or not is_storable(reason):
        raise LedgerError("a purge needs a reason; it stays on record")
    keep_erasable(conn, reason, "the reason")
    if before > now.date():
        raise LedgerError(f"{before} is still to come; purge outputs from before today or an earlier day")
    count = purgeable_count(conn, before)
    if not count:
        return 0
    # Afterwards nobody could tell that one had been altered before.
    altered = next(changed_outputs(conn, _purgeable(before)), None)
    if altered is not None:
        raise IntegrityError(f"output {altered} does not have its stored hash, so its text stays; run credit verify")
    number = next_id(conn, purge)
    row = {"id": number, "before": before.isoformat(), "outputs": count, "reason": reason}
    insert_records(conn, purge, [{**row, "recorded_at": utc_text(now)}])
    emptied = {"prompt": "", "messages_json": None, "completion": "", "salt": None, "purge_id": number}
    conn.execute(update(output).where(_purgeable(before)).values(emptied))
    # Last, because the seal is over what is left of the outputs.
    seal_row(conn, purge, number)
    return count


def _purgeable(before: date) -> ColumnElement[bool]:
    valued = exists().where(valuation.c.output_id == output.c.id)
    # Moments sort as text, and a day sorts before all its moments.
    return and_(output.c.occurred_at < before.isoformat(), output.c.purge_id.is_(None), or_(valued, is_unvalued()))
