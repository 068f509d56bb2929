"""Tiny models in float64, so that an oracle and the engine may differ by rounding alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from credit.records import Group, LoggedOutput, TrainingRecord
from credit.valuation import requirements, shards, unit_files
from credit.valuation.language_model import LanguageModel, load_model
from tests.models import records, save_tiny_model, sentence

FOLDED, SINGLE, LONE = Group("ann", "books"), Group("ben", "blog"), Group("cleo")


@pytest.fixture(scope="session", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("model") / request.param, request.param)
    return load_model(folder, dtype="fp64", device="cpu")


@pytest.fixture(scope="session")
def data() -> list[TrainingRecord]:
    """Three groups: one that must be folded at 4 rows, one of single examples, one of a lone example."""
    return records({FOLDED: 13, SINGLE: 4, LONE: 1})


def make_output(number: int, prompt: str, completion: str, model: str = "tiny") -> LoggedOutput:
    return LoggedOutput("own", f"o{number}", datetime(2026, 9, 1, tzinfo=UTC), model, completion, prompt)


@pytest.fixture(scope="session")
def outputs() -> list[LoggedOutput]:
    return [make_output(i, sentence(500 + i, 2 * i), sentence(600 + i, 3 + 2 * i)) for i in range(4)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def write_limits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set how large a shard may be, in bytes of float32, and how many bytes of partial sums wait to be merged."""

    def limit(*, shard_bytes: int | None = None, waiting_bytes: int | None = None) -> None:
        if shard_bytes is not None:
            monkeypatch.setattr(shards, "SHARD_BYTES", shard_bytes)
        if waiting_bytes is not None:
            monkeypatch.setattr(unit_files, "WAITING_BYTES", waiting_bytes)

    return limit


@pytest.fixture
def machine_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set how much memory the machine has free, in bytes, as Linux reports it."""
    report = tmp_path / "meminfo"
    monkeypatch.setattr(requirements, "MEMINFO", report)

    def limit(available: int) -> None:
        report.write_text(f"MemAvailable: {available // 1024} kB\n")

    return limit
