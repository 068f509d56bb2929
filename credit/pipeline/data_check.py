"""Training data and the ledger's providers → a check of what an index would take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from credit.fidelity.data_check import DataCheck, examine
from credit.ingest.declarations import Declarations
from credit.ingest.quarantine import QuarantineSummary
from credit.ingest.training import TrainingReader
from credit.ingest.training_source import AS_IT_IS, TrainingSource
from credit.pipeline.index import known_providers
from credit.pipeline.workspace import Workspace
from credit.valuation.language_model import load_encoder


@dataclass(frozen=True, slots=True)
class DataCheckRequest:
    """Request to check training data.

    Attributes:
        data: files and folders of training data.
        source: how to read data in another form.
        model: folder of the model, to count tokens; its weights are not read. None counts no tokens.
        max_length: most tokens of a window; None for the model's, at most 2048.
        least: fraction of another provider's text from which on a record is a near-copy.
        ledger: compare providers with those of the ledger.
    """

    data: Sequence[Path]
    source: TrainingSource = AS_IT_IS
    model: Path | None = None
    max_length: int | None = None
    least: float = 0.8
    ledger: bool = True


def check_training_data(
    workspace: Workspace, request: DataCheckRequest, progress: Callable[[int, int], None] | None = None
) -> DataCheck:
    """Check training data; write nothing.

    Raises:
        LedgerError: there is no ledger with providers.
        InputError: a file as a whole cannot be used.
        ValuationError: the model's folder cannot be used.
    """
    known = known_providers(workspace) if request.ledger else None
    encoder = None if request.model is None else load_encoder(request.model, request.max_length)
    problems, declarations = QuarantineSummary(), Declarations()
    reader = TrainingReader(request.data, source=request.source, declarations=declarations, on_quarantined=problems.add)
    return examine(reader, problems, declarations, known=known, encoder=encoder, least=request.least, progress=progress)
