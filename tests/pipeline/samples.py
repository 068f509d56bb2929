"""A tiny workspace made by the product's own commands: a random model, its index, providers, two months of logs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from sqlalchemy import select

from credit.cli.main import cli
from credit.ledger.database import Ledger
from credit.ledger.schema import metadata
from credit.records import Group, TrainingRecord
from tests.models import records, save_tiny_model, sentence

MODEL = "tiny"
FIRST, SECOND = "2025-03", "2025-04"
OUTPUTS = 40
PROVIDERS = "key,name,kind,currency,minimum_payout\nann,Ann,,,\nben,Ben,,EUR,5\nus,Us,house,,\n"
GROUPS = {Group("ann", "books"): 40, Group("ann", "blog"): 10, Group("ben"): 30, Group("us"): 5}

_VOLATILE = {"hash", "row_sha256", "prev_hash"}
"""Columns that cover the moment of recording, besides the moments (`*_at`) themselves."""


@dataclass(frozen=True, slots=True)
class Site:
    """A ledger with its data folder, and the files that commands are given. `folder` also holds model and index."""

    folder: Path
    url: str
    data_dir: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes every command use this ledger."""
        # One key for all: two ledgers of the same log have the same pseudonyms.
        return {
            "CREDIT_DATABASE_URL": self.url,
            "CREDIT_DATA_DIR": str(self.data_dir),
            "CREDIT_USER_KEY": str(self.folder / "users.key"),
        }

    def run(self, *arguments: str | Path, code: int = 0) -> Result:
        """Run a command in this process and check its exit code."""
        result = CliRunner(env=self.environment).invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == code, (
            f"credit {' '.join(map(str, arguments))} -> {result.exit_code}\n{result.output}"
        )
        return result

    def close(self, period: str, *arguments: str, code: int = 0) -> Result:
        """Close a period that nobody validated: its model is random."""
        return self.run("close", period, "--unvalidated", "a test", "--unreviewed", "a test", *arguments, code=code)

    def json(self, *arguments: str | Path, code: int = 0) -> dict[str, object]:
        """Run a command with `--json` and return the object that it prints."""
        printed: dict[str, object] = json.loads(self.run(*arguments, "--json", code=code).stdout)
        return printed

    def log(self, name: str, rows: Iterable[Mapping[str, object]], *, code: int = 0) -> Result:
        """Write rows as a log and ingest it."""
        return self.run("ingest-outputs", write_jsonl(self.data_dir.parent / name, rows), code=code)

    def tables(self) -> dict[str, list[tuple[object, ...]]]:
        """Every row of every table, but for the moments of recording and what is hashed from them."""
        found = {}
        with Ledger.open(self.url) as ledger, ledger.read() as conn:
            for table in metadata.sorted_tables:
                # A file's place and time are those of the test's folder.
                skipped = {*_VOLATILE, "path", "mtime_ns"} if table.name == "file_reading" else _VOLATILE
                columns = [c for c in table.columns if c.name not in skipped and not _is_moment(c.name)]
                found[table.name] = sorted(tuple(row) for row in conn.execute(select(*columns)))
        return found

    def named(self, table: str) -> list[dict[str, Any]]:
        """Every row of one table, by the names of its columns."""
        with Ledger.open(self.url) as ledger, ledger.read() as conn:
            return [dict(row) for row in conn.execute(select(metadata.tables[table])).mappings()]

    def books(self) -> dict[str, bytes]:
        """Every score book, by file name."""
        return {path.name: path.read_bytes() for path in sorted((self.data_dir / "books").glob("*.parquet"))}


def _is_moment(column: str) -> bool:
    return column.endswith("_at") and column != "occurred_at"


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def training_row(record: TrainingRecord) -> dict[str, object]:
    """A training record as users write it."""
    row: dict[str, object] = {"id": record.id, "provider": record.group.provider, "collection": record.group.collection}
    if record.prompt is None:
        return row | {"text": record.completion}
    return row | {"prompt": record.prompt, "completion": record.completion}


def output_row(number: int, **changes: object) -> dict[str, object]:
    """A logged output as users write it: even numbers in the first month, odd ones in the second."""
    row: dict[str, object] = {
        "id": f"o{number}",
        "occurred_at": f"{SECOND if number % 2 else FIRST}-{1 + number % 28:02d}T12:00:00Z",
        "model": MODEL,
        "prompt": sentence(number, number % 5),
        "completion": " " + sentence(100 + number, 3 + number % 7),
        "weight": 1 + number % 3,
    }
    return {name: value for name, value in (row | changes).items() if value is not None}


def make_inputs(folder: Path) -> Path:
    """Write model, training data, providers and log into a folder."""
    save_tiny_model(folder / MODEL)
    write_jsonl(folder / "train.jsonl", map(training_row, records(GROUPS)))
    (folder / "providers.csv").write_text(PROVIDERS)
    (folder / "users.key").write_text("2b" * 32)
    write_jsonl(folder / "outputs.jsonl", (output_row(number) for number in range(OUTPUTS)))
    return folder


def make_site(folder: Path, url: str, data_dir: Path) -> Site:
    """Bring a new ledger as far as `compute`, by the real commands. An index that is there already is used."""
    site = Site(folder, url, data_dir)
    site.run("init")
    site.run("providers", "import", folder / "providers.csv")
    site.run("index", folder / MODEL, folder / "train.jsonl", "--out", folder / "index", "--name", MODEL, "--rank", "4")
    site.run("ingest-outputs", folder / "outputs.jsonl")
    return site


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, and on busy cores these spend most of their time waiting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model, training data, providers and log."""
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def pristine(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SQLite ledger that is ready to compute, to be copied and never used."""
    folder = tmp_path_factory.mktemp("pristine")
    make_site(inputs, f"sqlite:///{folder / 'credit.db'}", folder / "credit-data")
    return folder


@pytest.fixture
def new_site(inputs: Path, pristine: Path, tmp_path: Path) -> Callable[[str], Site]:
    """A function that makes fresh copies of the workspace, on SQLite."""

    def make(name: str) -> Site:
        copy = shutil.copytree(pristine, tmp_path / name)
        return Site(inputs, f"sqlite:///{copy / 'credit.db'}", copy / "credit-data")

    return make


@pytest.fixture
def site(new_site: Callable[[str], Site]) -> Site:
    """A fresh copy of the workspace, on SQLite: everything is logged, nothing is valued."""
    return new_site("site")


@pytest.fixture
def make_on_engine(
    engine_name: str,
    request: pytest.FixtureRequest,
    inputs: Path,
    shared_database: Callable[..., str],
    tmp_path: Path,
) -> Callable[[str], Site]:
    """A function that makes a workspace that is ready to compute, on each engine."""
    if engine_name == "sqlite":
        copies: Callable[[str], Site] = request.getfixturevalue("new_site")
        return copies
    request.getfixturevalue("pristine")  # builds the index once
    return lambda name: make_site(inputs, shared_database(), tmp_path / name / "credit-data")
