"""Comparison of indexes that must hold the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from credit.records import LoggedOutput
from credit.valuation import AttributionIndex, LanguageModel


def assert_equal_indexes(revised: Path, rebuilt: Path, model: LanguageModel, outputs: Sequence[LoggedOutput]) -> None:
    """Fail unless two indexes have the same groups and inputs, and the same numbers but for rounding."""
    ours, truth = AttributionIndex.open(revised), AttributionIndex.open(rebuilt)
    assert ours.manifest.groups == truth.manifest.groups
    assert ours.manifest.data_sha256 == truth.manifest.data_sha256
    assert ours.manifest.inputs.sha256 == truth.manifest.inputs.sha256
    for (name, a), (_, b) in zip(*(next(i.shards(model.device)) for i in (ours, truth)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
    a, b = ours.value(model, outputs), truth.value(model, outputs)
    torch.testing.assert_close(a.effect(), b.effect(), rtol=1e-6, atol=1e-12)
    listing = [(i.path("examples.jsonl")).read_text() for i in (ours, truth)]
    assert sorted(listing[0].splitlines()) == sorted(listing[1].splitlines())
