"""Values outputs that were credited before again, by another index and its model, for a restatement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from credit.accounting.credits import MeasuredOutput, Policy
from credit.errors import LedgerError
from credit.ledger.database import Ledger
from credit.ledger.outputs import outputs_by_id
from credit.ledger.sources import PostedBook
from credit.pipeline.compute import DEFAULT_CHUNK, check_providers, paid_measures
from credit.pipeline.restating import Rescore
from credit.valuation import AttributionIndex


def by_index(ledger: Ledger, folder: Path, changes: Mapping[str, Any]) -> tuple[Rescore, str]:
    """Return a `Rescore` that asks the index in `folder` and its model, and the index's fingerprint.

    The index need not be registered: outputs to come are valued by the one that is.

    Args:
        ledger: the ledger that the outputs are in.
        folder: the index.
        changes: new values of the policy, by field of `Policy`; the others stay as they were for each book.

    Raises:
        LedgerError: the index credits a provider that the ledger does not know, or, when called, is of another model.
        MismatchError, IntegrityError: as opening an index does.
    """
    index = AttributionIndex.open(folder, damping=changes.get("damping"))
    model = index.load_model()
    with ledger.read() as conn:
        check_providers(conn, index)

    def rescore(book: PostedBook, rows: pl.DataFrame) -> Iterator[MeasuredOutput]:
        policy = replace(Policy.from_json(book.policy_json), **changes)
        ids = rows["output_id"].unique().sort().to_list()
        for start in range(0, len(ids), DEFAULT_CHUNK):
            with ledger.read() as conn:
                chunk = outputs_by_id(conn, ids[start : start + DEFAULT_CHUNK])
            others = sorted({stored.output.model for stored in chunk} - {index.manifest.name})
            if others:
                raise LedgerError(
                    f"{folder} is an index of {index.manifest.name}, but there are outputs of {others[0]}"
                )
            valued = index.value(model, [stored.output for stored in chunk], noise_floor=policy.noise_floor)
            for stored, measures in zip(chunk, paid_measures(valued, policy), strict=True):
                item = stored.output
                yield MeasuredOutput(policy, item.name, item.weight_micro, index.groups, measures)

    return rescore, index.manifest.fingerprint
