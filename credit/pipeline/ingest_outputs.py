"""`credit ingest-outputs`: files of logged outputs → the ledger. Each call of a model becomes one output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
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
from credit.ledger.file_readings import FileReading
from credit.ledger.identities import has_told
from credit.ledger.lookalikes import count_lookalikes
from credit.pipeline.ingest import IngestReport
from credit.pipeline.known_files import KnownFile
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
    reread: bool = False,
    name: str = "",
) -> IngestReport:
    """Log the outputs of a file in one transaction: all its good records, or, if `strict`, none unless all are good.

    A record that the ledger has already is counted as a duplicate and changes nothing. `key` makes the pseudonyms of
    users; without it the key of the data folder does, drawn at first need. `new_key` lets a ledger change its key. The
    other arguments are those of `credit.ingest.outputs.OutputReader`.

    An unfinished record at the end of a file waits for the next run, unless the file is `complete` or has not changed
    for an hour. A file that is as an earlier run read it is not read again, unless `reread`; lines are read from where
    the earlier run ended. `name` stands in reports for a file that is a copy of something, whose readings are not kept.

    Raises:
        InputError: the file as a whole cannot be used, or `strict` and a record is bad, or the key is none.
        LedgerError: earlier outputs have pseudonyms of another key.
    """
    key = key or own_key(workspace.pseudonym_key)
    limits = limits or OutputLimits()
    check_input(path, may_be_empty=True)
    moment = occurred_at.isoformat() if occurred_at else ""
    options = (source, sorted((fields or {}).items()), moment, model, key.id, *astuple(limits))
    # The requests of a batch lie in other files, and decide what becomes of its results.
    known = None if name or requests else KnownFile.look(path, options)
    reading = Reading(path, growing=not complete and not is_still(path), may_be_empty=True, name=name)
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
    with workspace.open() as ledger:
        with ledger.read() as conn:
            before = None if known is None or reread else known.last(conn)
        if known and before and known.is_unchanged(before, growing=reading.growing):
            return _report_unchanged(reading, before)
        if known and before:
            known.resume(reading, before)
        # The quarantine gets its name before the commit: a run killed in between reads the file again, and finds it.
        with ledger.write() as conn, _quarantine(workspace, reading) as quarantine:
            if not new_key:
                check_key(conn, key)
            run = _FileRun(conn, path, reader, quarantine, strict=strict)
            run.log()
            report = run.report()
            run.record(report, reading)
            if known and reading.size:
                known.record(conn, reading, quarantined=report.quarantined, can_resume=reader.can_resume)
    report.file, report.unfinished = reading.name, reading.unfinished
    report.quarantine_file = quarantine.path if report.quarantined else None
    return report


def _quarantine(workspace: Workspace, reading: Reading) -> QuarantineFile:
    return QuarantineFile(workspace.quarantine, Path(reading.name), lambda: reading.sha256)


def _report_unchanged(reading: Reading, before: FileReading) -> IngestReport:
    return IngestReport(
        reading.name,
        is_unchanged=True,
        unfinished=before.unfinished,
        quarantined=before.quarantined,
        quarantined_before=before.quarantined,
    )


@dataclass(slots=True)
class _Counts:
    """Counts of a file's records, by outcome."""

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

    def record(self, report: IngestReport, reading: Reading) -> None:
        """Record the file, unless it brought nothing new and so leaves no trace: twice is once."""
        if report.accepted or has_told(self._conn, self.file_id):
            record_file(
                self._conn,
                self.file_id,
                sha256=reading.sha256,
                name=Path(reading.name).name,
                format=self._path.suffix.lstrip("."),
                accepted=report.accepted,
                duplicates=report.duplicates,
                quarantined=report.quarantined,
                now=datetime.now(UTC),
            )

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
            case Verdict.CONFLICT | Verdict.UNKNOWN_MODEL:
                self._refuse(item.quarantined(added.problem))
            case Verdict.UNSTORABLE:
                self._refuse(
                    item.quarantined(f"output {output.name!r} holds text or a weight that no database can store")
                )
