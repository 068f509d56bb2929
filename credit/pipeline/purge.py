"""Retention: texts of finished outputs leave the ledger, and old quarantined records leave the disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from credit.errors import LedgerError, LockHeldError
from credit.ingest.quarantine import quarantined_files
from credit.ledger.purges import purge_outputs, purgeable_count
from credit.ledger.schema import output
from credit.pipeline.workspace import Workspace
from credit.text import counted


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """Outcome of a purge: the outputs from before a day without texts, and the deleted files of quarantined records."""

    before: date
    outputs: int
    quarantine_files: int
    dry_run: bool = False


def purge(
    workspace: Workspace, before: date, *, reason: str, dry_run: bool = False, now: datetime | None = None
) -> PurgeReport:
    """Purge outputs from before a day, and delete quarantine files last written before it.

    After a kill, the same call again finishes the cleaning of the files.

    Args:
        workspace: the ledger and its files.
        before: day, UTC.
        reason: stays on record.
        dry_run: change nothing.
        now: moment of recording.

    Raises:
        LedgerError: as `credit.ledger.purges.purge_outputs`; or the files cannot be cleaned.
        LockHeldError: another run writes, and nothing was done; or the texts are gone from the ledger, but another
            session keeps their bytes in the files. The message says which.
    """
    midnight = datetime.combine(before, time(), UTC).timestamp()
    old = [path for path in quarantined_files(workspace.quarantine) if path.stat().st_mtime < midnight]
    with workspace.open() as ledger:
        if dry_run:
            with ledger.read() as conn:
                return PurgeReport(before, purgeable_count(conn, before), len(old), dry_run=True)
        # With temporary files: SQLite would keep the old version of every changed page in memory.
        with ledger.write(sorting=True) as conn:
            count = purge_outputs(conn, before, reason=reason, now=now or datetime.now(UTC))
        for path in old:
            path.unlink(missing_ok=True)
        try:
            ledger.scrub(output)
        except (LedgerError, LockHeldError) as error:
            fault = f"{counted(count, 'output')} purged in the ledger, but bytes may remain in its files: {error}"
            raise type(error)(fault) from error
    return PurgeReport(before, count, len(old))
