"""`credit ingest-outputs`: files of logged outputs → the ledger. Each call of a model becomes one output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from credit.errors import InputError, IntegrityError
from credit.ingest.batch_requests import BatchRequests
from credit.ingest.files import Parsed, check_input
from credit.ingest.outputs import OutputLimits, OutputReader
from credit.ingest.pseudonyms import PseudonymKey, own_key
from credit.ingest.quarantine import QuarantineFile, QuarantineSummary
from credit.ingest.streams import Reading, is_still
from credit.ledger.admission import Added, Verdict, add_outputs, add_spans, holders, record_file, start_file
from credit.ledger.identities import has_told
from credit.ledger.indexes import models
from credit.ledger.lookalikes import count_lookalikes
from credit.pipeline.ingest import IngestReport
from credit.pipeline.workspace import Workspace, check_key
from credit.records import LoggedOutput, Quarantined

_BATCH = 1000
_HELD_BYTES = 16 * 1024 * 1024
"""Records that are judged together: so many, or fewer with so many bytes."""
_HOLDS = "calls that another span tells of"

Item = Parsed[LoggedOutput] | Quarantined


def ingest_outputs(
    workspace: Workspace,
    path: Path,
    *,
    source: str | None = None,
    fields: Mapping[str, str] | None = None,
    requests: BatchRequests | None = None,
    occurred_at: datetime | None = None,
    model: str = "",
    limits: OutputLimits | None = None,
    key: PseudonymKey | None = None,
    new_key: bool = False,
    strict: bool = False,
    complete: bool = False,
) -> IngestReport:
    """Log the outputs of a file in one transaction: all its good records, or, if `strict`, none unless all are good.

    A record that the ledger has already is counted as a duplicate and changes nothing. `key` makes the pseudonyms of
    users; without it the key of the data folder does, drawn at first need. `new_key` lets a ledger change its key. The
    other arguments are those of `credit.ingest.outputs.OutputReader`.

    An unfinished record at the end of a file waits for the next run, unless the file is `complete` or has not changed
    for an hour.

    Raises:
        InputError: the file as a whole cannot be used, or `strict` and a record is bad, or the key is none.
        LedgerError: earlier outputs have pseudonyms of another key.
    """
    key = key or own_key(workspace.pseudonym_key)
    check_input(path, may_be_empty=True)
    reading = Reading(path, growing=not complete and not is_still(path), may_be_empty=True)
    reader = OutputReader(
        path,
        source=source,
        fields=fields,
        requests=requests,
        occurred_at=occurred_at,
        model=model,
        limits=limits,
        key=key,
        reading=reading,
    )
    with (
        workspace.open() as ledger,
        QuarantineFile(workspace.quarantine, path, lambda: reading.sha256) as quarantine,
        ledger.write() as conn,
    ):
        if not new_key:
            check_key(conn, key)
        run = _FileRun(conn, path, reader, quarantine, strict=strict)
        run.log()
        report = run.report()
        # A file that brought nothing new leaves no trace: twice is once.
        if report.accepted or has_told(conn, run.file_id):
            record_file(
                conn,
                run.file_id,
                sha256=reading.sha256,
                name=path.name,
                format=path.suffix.lstrip("."),
                accepted=report.accepted,
                duplicates=report.duplicates,
                quarantined=report.quarantined,
                now=datetime.now(UTC),
            )
    report.unfinished = reading.unfinished
    report.quarantine_file = quarantine.path if report.quarantined else None
    return report


@dataclass(slots=True)
class _Counts:
    """Counts of what became of the records of a file."""

    accepted: int = 0
    duplicates: int = 0
    told: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


class _FileRun:
    """One reading of a file: records go to the ledger in batches, and bad ones to quarantine."""

    def __init__(
        self, conn: Connection, path: Path, reader: OutputReader, quarantine: QuarantineFile, *, strict: bool
    ) -> None:
        self.file_id = start_file(conn)
        self._conn, self._path, self._reader = conn, path, reader
        self._quarantine, self._strict = quarantine, strict
        self._problems = QuarantineSummary()
        self._known_models = ", ".join(sorted(models(conn))) or "none"
        self._counts = _Counts()
        self._doubled: list[str] = []

    def log(self) -> None:
        """Read the file and log its outputs."""
        batch: list[Item] = []
        held = 0
        for item in self._reader:
            # A bad record of a span waits too: a span that holds the call need not be readable.
            if isinstance(item, Quarantined) and item.identity is None:
                self._refuse(item)
                continue
            batch.append(item)
            held += len(item.raw)
            if len(batch) == _BATCH or held > _HELD_BYTES:
                self._add(batch)
                batch, held = [], 0
        self._add(batch)

    def report(self) -> IngestReport:
        """Return the outcome, after a check that every record is accounted for."""
        counts, bad = self._counts, self._quarantine.count
        skipped = Counter(self._reader.skipped) + counts.skipped
        total = counts.accepted + counts.duplicates + bad + skipped.total()
        if total != self._reader.read:
            raise IntegrityError(
                f"{self._path}: {self._reader.read} records were read and {total} accounted for; nothing was logged."
                " This is an error in credit: please report it"
            )
        return IngestReport(
            str(self._path),
            read=self._reader.read,
            accepted=counts.accepted,
            duplicates=counts.duplicates,
            told=counts.told,
            lookalikes=count_lookalikes(self._conn, self.file_id) if counts.accepted else 0,
            skipped=dict(sorted(skipped.items())),
            quarantined=bad,
            quarantined_before=self._quarantine.before,
            problems=(*self._problems.lines(), *self._doubled),
            doubled=len(self._doubled),
            notices=self._reader.notices,
        )

    def _refuse(self, item: Quarantined) -> None:
        if self._strict:
            raise InputError(f"{item}; nothing of this file was logged (--strict)")
        if self._quarantine.add(item):
            self._problems.add(item)

    def _add(self, batch: list[Item]) -> None:
        problems = add_spans(self._conn, self._reader.spans.take(), self.file_id, file=self._path.name)
        self._doubled += [f"{self._path}: {problem}" for problem in problems]
        good = [item for item in batch if isinstance(item, Parsed)]
        bad = [item for item in batch if isinstance(item, Quarantined)]
        for item, holds in zip(bad, holders(self._conn, [item.identity for item in bad if item.identity]), strict=True):
            if holds:
                self._counts.skipped[_HOLDS] += 1
            else:
                self._refuse(item)
        outputs, lines = [item.record for item in good], [item.place.line for item in good]
        verdicts = add_outputs(self._conn, outputs, self.file_id, file=self._path.name, lines=lines)
        for found, added in zip(good, verdicts, strict=True):
            self._count(found, added)

    def _count(self, item: Parsed[LoggedOutput], added: Added) -> None:
        output = item.record
        match added.verdict:
            case Verdict.ACCEPTED:
                self._counts.accepted += 1
            case Verdict.DUPLICATE:
                self._counts.duplicates += 1
            case Verdict.TOLD:
                self._counts.duplicates += 1
                self._counts.told += 1
            case Verdict.HOLDS:
                self._counts.skipped[_HOLDS] += 1
            case Verdict.CONFLICT:
                self._refuse(item.quarantined(added.problem))
            case Verdict.UNKNOWN_MODEL:
                self._refuse(
                    item.quarantined(
                        f"model {output.model!r} has no index (known: {self._known_models});"
                        " build it with credit index --name"
                    )
                )
            case Verdict.UNSTORABLE:
                self._refuse(
                    item.quarantined(f"output {output.name!r} holds text or a weight that no database can store")
                )
