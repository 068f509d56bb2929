"""Training data are tokenised once: slices, a merge and a build after a kill find what the first run has kept."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from credit.errors import EXIT_PARTIAL, EXIT_USAGE, IntegrityError
from credit.ingest.training_source import TrainingSource
from credit.pipeline import tokenised
from credit.pipeline.index import IndexRequest, index_training_data
from credit.pipeline.tokenised import TrainingInput, kept_or_tokenised, tokenise
from credit.pipeline.workspace import Workspace
from credit.records import Quarantined
from credit.valuation import IndexSettings, LanguageModel, load_model
from credit.valuation.examples import TrainingData
from tests.kills import die_at_change
from tests.pipeline.samples import MODEL

SETTINGS = IndexSettings(rank=2)
_FORKS = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def model(inputs: Path) -> LanguageModel:
    return load_model(inputs / MODEL, dtype="fp32", device="cpu")


@pytest.fixture
def data(inputs: Path, tmp_path: Path) -> Path:
    """Training data with a shared record, a bad one, and one that comes twice."""
    lines = (inputs / "train.jsonl").read_text().splitlines()
    splits = [{"provider": "ann", "share": 0.7}, {"provider": "ben", "share": 0.3}]
    lines += ['{"id": "bad"}', lines[0], json.dumps({"id": "both", "splits": splits, "text": "salt wind tide " * 40})]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def _reading(data: Path, refuse: Callable[[Quarantined], None], **source: Any) -> TrainingInput:
    return TrainingInput([data], TrainingSource(**source), {"ann", "ben", "us"}, refuse)


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_kept_is_what_was_read(data, model, tmp_path):
    told: list[list[Quarantined]] = [[], [], []]
    plain = tokenise(_reading(data, told[0].append), model, tmp_path, SETTINGS)
    first, again = (
        kept_or_tokenised(_reading(data, items.append), model, tmp_path, SETTINGS, tmp_path / "tokens")
        for items in told[1:]
    )
    (folder,) = (path for path in (tmp_path / "tokens").iterdir() if path.is_dir())
    assert folder.stat().st_mode & 0o077 == 0
    assert told[0] == told[1] == told[2] != []
    for found in (first, again):
        assert found.counts == plain.counts
        assert found.notices == plain.notices
        assert found.data.sha256 == plain.data.sha256
        assert len(found.data.members) == len(plain.data.members)
        for ours, truth in zip(found.data.members, plain.data.members, strict=True):
            assert (ours.id, ours.shares, ours.tokens, ours.digest) == (
                truth.id,
                truth.shares,
                truth.tokens,
                truth.digest,
            )
            assert ours.example.digest() == truth.example.digest()
        for name in ("sizes", "window_sizes", "window_counts", "keys"):
            truth = getattr(plain.data.members.store, name)
            np.testing.assert_array_equal(getattr(found.data.members.store, name), truth)
        np.testing.assert_array_equal(
            found.data.members.store.window_keys("x"), plain.data.members.store.window_keys("x")
        )


def test_everything_that_decides_the_tokens_is_in_the_name(data, model, inputs, tmp_path, monkeypatch):
    def name(reading: TrainingInput, settings: IndexSettings = SETTINGS) -> str | None:
        return reading.name(model, settings)

    ignore: Callable[[Quarantined], None] = list[Quarantined]().append
    names = [
        name(_reading(data, ignore)),
        name(_reading(data, ignore, preference="both")),
        name(_reading(data, ignore, fields={"text": "body"})),
        name(TrainingInput([data], TrainingSource(), {"ann", "ben"}, ignore)),
        name(TrainingInput([data], TrainingSource(), None, ignore)),
        name(TrainingInput([data, inputs / "train.jsonl"], TrainingSource(), {"ann", "ben", "us"}, ignore)),
        name(_reading(data, ignore), IndexSettings(max_length=17)),
        name(_reading(data, ignore), IndexSettings(example_length=17)),
        name(_reading(data, ignore), IndexSettings(template_date="2025-01-01")),
    ]
    for line in ("value,provider\nx,ann\n", "value,provider\nx,ben\n"):
        (tmp_path / "map.csv").write_text(line)
        names.append(name(_reading(data, ignore, provider_from="path", provider_map=tmp_path / "map.csv")))
    monkeypatch.setattr(tokenised, "VERSION", "next")
    names.append(name(_reading(data, ignore)))
    monkeypatch.undo()
    assert name(_reading(data, ignore), IndexSettings(rank=7, seed=3, damping=1.0)) == names[0]
    data.write_text(data.read_text() + '{"id": "new", "provider": "ann", "text": "salt wind"}\n')
    names.append(name(_reading(data, ignore)))
    assert len(set(names)) == len(names)
    assert name(_reading(data, ignore, provider_from="croissant")) is None


def test_data_that_grow_while_they_are_read_and_altered_tokens_are_not_used(data, model, tmp_path):
    place, bad = tmp_path / "tokens", list[Quarantined]()

    def grow(item: Quarantined) -> None:
        bad.append(item)
        with data.open("a") as file:
            file.write('{"id": "late", "provider": "ann", "text": "salt wind tide"}\n')

    kept_or_tokenised(_reading(data, grow), model, tmp_path, SETTINGS, place)
    assert bad
    assert [path.name for path in place.iterdir()] == [".lock"]
    made = kept_or_tokenised(_reading(data, bad.append), model, tmp_path, SETTINGS, place)
    (folder,) = (path for path in place.iterdir() if path.is_dir())
    before = _content(folder)
    for name in before:
        (folder / name).write_bytes(before[name][:-1] + bytes([before[name][-1] ^ 1]))
        with pytest.raises(IntegrityError, match="delete"):
            TrainingData.open(folder)
        again = kept_or_tokenised(_reading(data, bad.append), model, tmp_path, SETTINGS, place)
        assert again.data.sha256 == made.data.sha256
        assert _content(folder) == before


def test_slices_and_their_merge_tokenise_once(site, inputs, tmp_path, monkeypatch):
    read: list[int] = []
    monkeypatch.setattr(
        tokenised, "encode_data", lambda *args, made=tokenised.encode_data: read.append(1) or made(*args)
    )
    lines = (inputs / "train.jsonl").read_text() + '{"id": "bad"}\n'
    (tmp_path / "train.jsonl").write_text(lines)

    def build(name: str, *options: str, code: int = EXIT_PARTIAL) -> str:
        out = ("--out", tmp_path / name, "--name", MODEL, "--rank", "2")
        return site.run("index", inputs / MODEL, tmp_path / "train.jsonl", *out, *options, code=code).stderr

    told = build("whole")
    assert "train.jsonl:86: " in told, "the bad record"
    build("sliced", "--slice", "1/2", code=0)
    build("sliced", "--slice", "2/2", code=0)
    assert (tmp_path / "sliced" / "tokens").is_dir()
    assert [line for line in build("sliced", "--merge").splitlines() if "train.jsonl" in line] == [
        line for line in told.splitlines() if "train.jsonl" in line
    ]
    assert len(read) == 2, "the first slice, and the whole build"
    assert _content(tmp_path / "sliced") == _content(tmp_path / "whole")
    # With a place of their own, they serve other indexes of the same data, and a dry run.
    kept = ("--tokens", str(tmp_path / "kept"))
    assert (
        "nothing but tokens"
        in site.run(
            "index",
            inputs / MODEL,
            tmp_path / "train.jsonl",
            "--out",
            tmp_path / "a",
            *kept,
            "--dry-run",
            code=EXIT_PARTIAL,
        ).stdout
    )
    dry = ("--out", tmp_path / "c", *kept, "--dry-run", "--workers", "2", "--rows-per-group", "all", "--json")
    plan = json.loads(site.run("index", inputs / MODEL, tmp_path / "train.jsonl", *dry, code=EXIT_PARTIAL).stdout)
    assert plan["needs"]["workers"] == 1, "it is one unit"
    build("a", *kept)
    build("b", *kept, "--curvature", "none")
    assert len(read) == 3
    assert _content(tmp_path / "a") == _content(tmp_path / "whole")
    assert "read their data" in build("a", *kept, "--update", code=EXIT_USAGE)


def test_a_build_killed_while_it_keeps_tokens_ends_as_if_it_had_not_been(data, inputs, tmp_path):
    def build(folder: Path, kill_at: int | None = None) -> None:
        torch.set_num_threads(1)
        if kill_at is not None:
            die_at_change(folder / "tokens", kill_at)
        request = IndexRequest(inputs / MODEL, [data], folder, MODEL, SETTINGS, register=False)
        index_training_data(Workspace("sqlite:///none", tmp_path / "data"), request)

    def in_a_process(*arguments: Any) -> bool:
        child = _FORKS.Process(target=build, args=arguments)
        child.start()
        child.join()
        assert child.exitcode in {0, -signal.SIGKILL}
        return child.exitcode == 0

    assert in_a_process(tmp_path / "whole")
    expected = _content(tmp_path / "whole")
    kills = 0
    for change in range(0, 100, 4):
        folder = tmp_path / str(change)
        if in_a_process(folder, change):
            break
        kills += 1
        assert in_a_process(folder)
        assert _content(folder) == expected
        shutil.rmtree(folder)
    assert kills > 2
