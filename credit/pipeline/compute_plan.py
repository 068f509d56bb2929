"""Plan of `compute`: time and memory, before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from credit.ledger.database import Ledger
from credit.ledger.indexes import indexes
from credit.ledger.outputs import StoredOutput, pending_count, pending_outputs
from credit.pipeline.compute import ComputeSettings
from credit.pipeline.engine import engine_for
from credit.pipeline.index import open_registered
from credit.pipeline.valuing import as_paid
from credit.pipeline.workspace import Workspace
from credit.valuation import AttributionIndex, read_manifest
from credit.valuation.valuing_cost import check_valuing, needs_of, probe_valuing

_TRIED = 16
"""Outputs tried."""


@dataclass(frozen=True, slots=True)
class ValuingPlan:
    """Plan to value the pending outputs of a model.

    Attributes:
        model: name of the model in logs.
        index: folder of its index.
        outputs: pending outputs.
        steps: chunks of them.
        groups: groups of the index.
        rows: rows of the index.
        tried: outputs from which the time is estimated, the oldest ones.
        seconds: time on this machine; on a cluster, of one worker.
        memory_bytes: memory of each worker beside its model.
        read_bytes: rows read for each step.
        workers: workers at a time; None if the cluster decides.
    """

    model: str
    index: Path
    outputs: int
    steps: int
    groups: int
    rows: int
    tried: int
    seconds: float
    memory_bytes: int
    read_bytes: int
    workers: int | None


def plan_compute(workspace: Workspace, settings: ComputeSettings) -> list[ValuingPlan]:
    """Return a plan for each model with pending outputs and an index; write nothing.

    Raises:
        LedgerError: an index is gone.
        MismatchError: a model differs from the index's.
        ValuationError: the valuation does not fit into memory.
    """
    with workspace.open() as ledger:
        return [_plan(settings, *waiting) for waiting in _waiting(ledger, settings)]


def _waiting(ledger: Ledger, settings: ComputeSettings) -> Iterator[tuple[AttributionIndex, int, list[StoredOutput]]]:
    """Yield the index of each model with pending outputs, their number, and some of them."""
    with ledger.read() as conn:
        newest = {index.model: index for index in indexes(conn)}
    named = {read_manifest(folder).name: folder for folder in settings.index_dirs}
    for model in newest.keys() | named.keys():
        with ledger.read() as conn:
            count, some = pending_count(conn, model_name=model), pending_outputs(conn, model, 0, _TRIED)
        if not count:
            continue
        if model in named:
            yield AttributionIndex.open(named[model], damping=settings.policy.damping), count, some
        else:
            yield open_registered(newest[model], damping=settings.policy.damping), count, some


def _plan(settings: ComputeSettings, index: AttributionIndex, count: int, some: list[StoredOutput]) -> ValuingPlan:
    step, steps = min(settings.chunk, count), -(-count // settings.chunk)
    needs = needs_of(index)
    path = Path(index.manifest.model_path)
    engine = engine_for(settings.engine, settings.device, path, needs.memory_bytes(step))
    workers = engine.planned(steps)
    check_valuing(needs, step, workers or 1)
    model = index.load_model(*settings.model_paths, dtype=settings.dtype, device=settings.device)
    outputs = [as_paid(stored.output, settings.policy) for stored in some]
    cost = probe_valuing(index, model, outputs, step, settings.policy.echo)
    check_valuing(cost.needs, step, workers or 1)
    return ValuingPlan(
        model=index.manifest.name,
        index=index.folder,
        outputs=count,
        steps=steps,
        groups=len(index.groups),
        rows=len(index.rows.count),
        tried=len(some),
        seconds=(cost.output_seconds * count + cost.step_seconds * steps) / (workers or 1),
        memory_bytes=cost.needs.memory_bytes(step),
        read_bytes=cost.needs.read_bytes,
        workers=workers,
    )
