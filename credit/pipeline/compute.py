"""Values pending outputs and posts their credits.

The way of an output: `_encodable` reads it from the ledger and tokenises it, `_valued_chunks` lets the workers of an
engine value it with others (`valuing`), `_scored` turns its influence into credits, and `_post_chunk` writes them to a
score book and to the journal. Chunks are valued in any order and posted in theirs, so that books and journal do not
depend on the workers. The ledger is locked for others only while a chunk is posted.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path

import polars as pl
from sqlalchemy import Connection
from torch import Tensor

from credit.accounting.credits import Policy, output_credits
from credit.engines import EngineChoice, Workers
from credit.errors import InputError
from credit.fidelity.certificate import read_certificate
from credit.ledger.accounts import AccountKind
from credit.ledger.database import Ledger
from credit.ledger.indexes import RegisteredIndex, indexes
from credit.ledger.journal import Entry, Posting, post_all
from credit.ledger.outputs import StoredOutput, pending_count, pending_outputs
from credit.ledger.periods import open_period_for
from credit.ledger.score_books import SCHEMA, WrittenBook, ensure_run, register_book, write_book
from credit.ledger.transaction_kinds import CreditsDetails, TransactionKind
from credit.pipeline.engine import engine_for
from credit.pipeline.index import check_providers, open_registered, register
from credit.pipeline.valuing import Valued, Valuing, as_paid
from credit.pipeline.workspace import Workspace
from credit.records import CREDIT, Group, LoggedOutput
from credit.storage import canonical_json
from credit.valuation import Valuation
from credit.valuation.tokens import Encoder
from credit.valuation.valuing_cost import check_valuing, needs_of
from credit.version import VERSION

DEFAULT_CHUNK = 256
"""Outputs valued and posted in one step; a killed run loses one step at most."""

Progress = Callable[[int, int], None]
"""Called with the number of outputs done, and of all."""

_NAMES = ("provider", "collection")

_NON_FINITE = "its gradient or influence is not a finite number; try --dtype fp32"


@dataclass(frozen=True, slots=True)
class ComputeSettings:
    """Settings of a run.

    Attributes:
        policy: policy of credits.
        calibrated: take the weights of effect from the index's certificate, if they predict better than plain effect.
        index_dirs: indexes to value by, also at a new place; the newest of each model if not named.
        model_paths: new places of models and checkpoints.
        dtype: number format of the model, or `auto`.
        device: `cpu`, `cuda`, ... or `auto`.
        chunk: outputs valued and posted in one step.
        engine: values the chunks.
    """

    policy: Policy = field(default_factory=Policy)
    calibrated: bool = True
    index_dirs: Sequence[Path] = ()
    model_paths: Sequence[Path] = ()
    dtype: str = "auto"
    device: str = "auto"
    chunk: int = DEFAULT_CHUNK
    engine: EngineChoice = field(default_factory=EngineChoice)


@dataclass(slots=True)
class ComputeReport:
    """Outcome of a run.

    Attributes:
        valued: outputs valued.
        books: score books written.
        credit_micro: credits posted, in micro-credits.
        refused: outputs without a value, and why; they stay pending until taken out.
        shortened: outputs longer with their prompt than the model's context, and how they were valued.
    """

    valued: int = 0
    books: int = 0
    credit_micro: int = 0
    refused: list[str] = field(default_factory=list)
    shortened: list[str] = field(default_factory=list)


def compute(workspace: Workspace, settings: ComputeSettings, progress: Progress | None = None) -> ComputeReport:
    """Value every pending output and post its credits, one chunk in one atomic step.

    A killed run loses at most its current chunk; the next run resumes there and ends with the same ledger. An output
    is valued once, by the newest index of its model, or by one that the settings name.

    Raises:
        LockHeldError: another run is at work on this ledger.
        LedgerError: a provider of the index is not in the ledger, or there is no index for the outputs.
        MismatchError: the model differs from the index's.
        IntegrityError: a file of the index was changed.
        ValuationError: so many outputs at a time do not fit into memory.
    """
    report = ComputeReport()
    with workspace.open() as ledger, ledger.exclusive("compute"):
        named = {register(ledger, folder).id for folder in settings.index_dirs}
        with ledger.read() as conn:
            known = indexes(conn)  # the newest last, which wins, and what was named before all others
            newest = {index.model: index for index in sorted(known, key=lambda index: index.id in named)}
            total = pending_count(conn)
        for index in newest.values():
            with ledger.read() as conn:
                waiting = pending_outputs(conn, index.model, 0, 1)
            if waiting:
                _compute_index(workspace, ledger, index, settings, report, total, progress)
    return report


def _compute_index(
    workspace: Workspace,
    ledger: Ledger,
    registered: RegisteredIndex,
    settings: ComputeSettings,
    report: ComputeReport,
    total: int,
    progress: Progress | None,
) -> None:
    index = open_registered(registered, damping=settings.policy.damping)
    with ledger.read() as conn:
        check_providers(conn, index)
    policy = calibrated_policy(index.folder, index.manifest.fingerprint, settings)
    models = tuple(path.resolve() for path in settings.model_paths)  # workers may have another working directory
    job = Valuing(registered, policy, models, settings.dtype, settings.device)
    needs, step, steps = needs_of(index), min(settings.chunk, total), -(-total // settings.chunk)
    memory = needs.memory_bytes(step)
    engine = engine_for(settings.engine, settings.device, Path(index.manifest.model_path), memory)
    check_valuing(needs, step, engine.planned(steps) or 1)
    # At most as many workers as chunks: each loads the model.
    with engine.start(job, most=steps) as workers:
        encoder = index.load_encoder(*settings.model_paths)
        for chunk, valuation in _valued_chunks(ledger, registered.model, settings.chunk, encoder, workers, report):
            _post_chunk(workspace, ledger, registered, index.groups, chunk, valuation, policy, encoder, report)
            if progress:
                progress(report.valued + len(report.refused), total)


def calibrated_policy(folder: Path, fingerprint: str, settings: ComputeSettings) -> Policy:
    """Return the policy of the settings, with the weights of effect from an index's certificate where they fit it."""
    certificate = read_certificate(folder, fingerprint) if settings.calibrated else None
    if certificate is None or not certificate.calibration_helps:
        return settings.policy
    fit = certificate.calibration
    # Weights of effect mean nothing to another measure, nor weights of one counterfactual to the other.
    if fit is None or settings.policy.measure != "effect" or not certificate.is_about(settings.policy):
        return settings.policy
    return replace(settings.policy, alpha=fit.alpha, beta=fit.beta, gamma=fit.gamma)


def _valued_chunks(
    ledger: Ledger,
    model: str,
    size: int,
    encoder: Encoder,
    workers: Workers[Sequence[LoggedOutput], Valued],
    report: ComputeReport,
) -> Iterator[tuple[list[StoredOutput], Valuation]]:
    """Yield the pending outputs of a model in chunks, with their values; one without a value holds up no other.

    Only outputs with a value count for the size. The others stay pending: counted, they would shift the borders of the
    chunks, and so books and postings, of a run that resumes a killed one. A chunk with one of them is therefore filled
    up from the next one, and what workers made of later chunks is dropped.
    """
    waiting = _encodable(ledger, model, size, encoder, report)
    again: deque[StoredOutput] = deque()
    while True:
        given: deque[list[StoredOutput]] = deque()
        with closing(workers.in_order(_chunks(again, waiting, size, given))) as results:
            for valued in results:
                chunk = given.popleft()
                if valued.valuation is not None and not valued.non_finite:
                    yield chunk, valued.valuation
                    continue
                left = _with_value(chunk, valued, workers, report)
                again.extendleft(reversed([*left, *(stored for later in given for stored in later)]))
                break
            else:
                return


def _chunks(
    again: deque[StoredOutput], waiting: Iterator[StoredOutput], size: int, given: deque[list[StoredOutput]]
) -> Iterator[list[LoggedOutput]]:
    """Yield chunks of outputs, first those to value again, and note in `given` what each consists of."""
    while True:
        chunk = [again.popleft() for _ in range(min(size, len(again)))]
        chunk += islice(waiting, size - len(chunk))
        if not chunk:
            return
        given.append(chunk)
        yield [stored.output for stored in chunk]


def _encodable(
    ledger: Ledger, model: str, size: int, encoder: Encoder, report: ComputeReport
) -> Iterator[StoredOutput]:
    """Yield the pending outputs of a model, as far as its tokenizer can encode them; refuse the others by name."""
    after = 0
    while True:
        with ledger.read() as conn:
            page = pending_outputs(conn, model, after, size)
        if not page:
            return
        after = page[-1].id
        for stored in page:
            try:
                reading = encoder.read_output(stored.output)
            except InputError as error:
                report.refused.append(str(error))
            else:
                if reading.shortage:
                    report.shortened.append(f"{stored.output.name} {reading.shortage}")
                yield stored


def _with_value(
    chunk: Sequence[StoredOutput],
    valued: Valued,
    workers: Workers[Sequence[LoggedOutput], Valued],
    report: ComputeReport,
) -> list[StoredOutput]:
    """Return the outputs of a chunk that have a value; refuse the others by name.

    Raises:
        ValuationError: no output has one, so it is not their fault and would come again.
    """
    if valued.error is None:
        report.refused += [f"{chunk[position].output.name}: {_NON_FINITE}" for position in valued.non_finite]
        return [stored for position, stored in enumerate(chunk) if position not in valued.non_finite]
    singles = list(workers.in_order([[stored.output] for stored in chunk]))
    if all(single.error is not None for single in singles):
        raise valued.error
    pairs = list(zip(chunk, singles, strict=True))
    report.refused += [f"{stored.output.name}: {one.error}" for stored, one in pairs if one.error is not None]
    return [stored for stored, one in pairs if one.error is None]


def _post_chunk(
    workspace: Workspace,
    ledger: Ledger,
    registered: RegisteredIndex,
    groups: Sequence[Group],
    chunk: Sequence[StoredOutput],
    valuation: Valuation,
    policy: Policy,
    encoder: Encoder,
    report: ComputeReport,
) -> None:
    scores = _scored(chunk, groups, valuation, policy, encoder)
    # The file comes first: a kill in between leaves a book without postings, which the next run writes again.
    book = write_book(workspace.books, scores)
    with ledger.write() as conn:
        post_scores(conn, registered, policy, book, chunk, scores, now=datetime.now(UTC))
    report.valued += len(chunk)
    report.books += 1
    report.credit_micro += int(scores["credit_micro"].sum())


def post_scores(
    conn: Connection,
    registered: RegisteredIndex,
    policy: Policy,
    book: WrittenBook,
    chunk: Sequence[StoredOutput],
    scores: pl.DataFrame,
    now: datetime,
) -> None:
    """Register a score book with its outputs and its run, and post its credits."""
    run = _run_fingerprint(registered.fingerprint, policy)
    run_id = ensure_run(
        conn, run, index_id=registered.id, policy_json=policy.to_json(), software_version=VERSION, now=now
    )
    register_book(
        conn,
        sha256=book.sha256,
        compute_run_id=run_id,
        output_ids=[stored.id for stored in chunk],
        row_count=book.row_count,
        byte_count=book.byte_count,
        now=now,
    )
    days = {stored.id: stored.output.occurred_at.date() for stored in chunk}
    details = CreditsDetails(book.sha256, run, registered.fingerprint)
    post_all(conn, list(_postings(conn, scores, days, details)), now=now)


def _scored(
    chunk: Sequence[StoredOutput], groups: Sequence[Group], valuation: Valuation, policy: Policy, encoder: Encoder
) -> pl.DataFrame:
    """Return a score for every output and group, and those of the house: for what nobody earned, and for echo.

    Where the policy pays by the sums of a period, these are the credits of each output by itself; the close of the
    period moves them.
    """
    effects = valuation.effect(policy.alpha, policy.beta, policy.gamma)
    paid = paid_measure(valuation, policy)
    # Columns, and no object for each score: with many groups those would fill the memory.
    pairs = [(group.provider, group.collection) for group in groups]
    names = pl.DataFrame(pairs, schema=dict.fromkeys(_NAMES, pl.String), orient="row")
    frames = [pl.DataFrame(schema=SCHEMA)]
    for place, stored in enumerate(chunk):
        name, weight_micro = stored.output.name, stored.output.weight_micro
        echo_micro = echo_of_weight(encoder, stored.output, policy)
        credited = output_credits(weight_micro, groups, paid[place].tolist(), tie_key=name, echo_micro=echo_micro)
        scores = names.with_columns(
            output_id=pl.lit(stored.id, pl.Int64),
            influence=valuation.influence[place].numpy(),
            support=valuation.support[place].numpy(),
            effect=effects[place].numpy(),
            credit_micro=pl.Series([micro for _, micro in credited[: len(groups)]], dtype=pl.Int64),
        )
        frames.append(scores.select(*SCHEMA))
        # Past the groups stand the house's collections.
        house = [(group, micro) for group, micro in credited[len(groups) :] if micro]
        rows = [(stored.id, group.provider, group.collection, 0.0, 0.0, 0.0, micro) for group, micro in house]
        frames.append(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    return pl.concat(frames)


def echo_of_weight(encoder: Encoder, output: LoggedOutput, policy: Policy) -> int:
    """Return the part of an output's weight that repeats its prompt, in micro-credits, rounded down."""
    if not policy.echo:
        return 0
    reading = encoder.read_output(as_paid(output, policy), policy.echo)
    return output.weight_micro * reading.echo // reading.predicted


def paid_measure(valuation: Valuation, policy: Policy) -> Tensor:
    """Return the measure paid by a policy, in nats: (outputs, groups)."""
    if policy.measure == "effect":
        return valuation.effect(policy.alpha, policy.beta, policy.gamma)
    return valuation.support if policy.measure == "support" else valuation.influence


def _postings(
    conn: Connection, scores: pl.DataFrame, days: dict[int, date], details: CreditsDetails
) -> Iterator[Posting]:
    """Yield one transaction per day: the credits its outputs issued, and the part of every group."""
    totals: dict[date, dict[Group, int]] = {}
    day = pl.col("output_id").replace_strict(days, return_dtype=pl.Date)
    for on, *group, micro in scores.group_by(day, *_NAMES).agg(pl.col("credit_micro").sum()).iter_rows():
        totals.setdefault(on, {})[Group(*group)] = micro
    # In the order of days, and of groups within them: the hash of a posting covers its order.
    for on in sorted(totals):
        credited = [(group, micro) for group, micro in sorted(totals[on].items()) if micro]
        if not credited:
            continue
        period = open_period_for(conn, on)
        issued = sum(micro for _, micro in credited)
        yield Posting(
            kind=TransactionKind.CREDITS,
            period=period,
            effective_on=on,
            idempotency_key=TransactionKind.CREDITS.key(score_book=details.score_book, day=on),
            entries=(
                Entry(AccountKind.ISSUED.key(), CREDIT, -issued),
                *(Entry(AccountKind.EARNED.key(group), CREDIT, micro) for group, micro in credited),
            ),
            details=details,
        )


def _run_fingerprint(index_fingerprint: str, policy: Policy) -> str:
    # The version counts as well: other code may compute other numbers.
    parts = [index_fingerprint, policy.to_json(), VERSION]
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()
