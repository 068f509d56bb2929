"""`credit compute` by several workers: the books and the ledger of one, whoever is killed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from credit.engines import EngineChoice, local
from credit.errors import EXIT_FAILED, EXIT_PARTIAL, EXIT_USAGE
from credit.pipeline.compute import ComputeSettings, Progress, compute
from credit.pipeline.workspace import Workspace
from tests.kills import die
from tests.pipeline.samples import MODEL, OUTPUTS, Site, output_row

CHUNK = 4
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.pipeline.test_engines", "transformers.models.llama.modeling_llama"])


@pytest.fixture(autouse=True)
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork workers from a process that has imported everything: to import torch takes longer than the work here."""
    monkeypatch.setattr(local, "PROCESSES", _FORKS)


def _compute(url: str, data_dir: Path, workers: int, progress: Progress | None = None) -> None:
    torch.set_num_threads(1)
    compute(Workspace(url, data_dir), ComputeSettings(chunk=CHUNK, engine=EngineChoice(workers=workers)), progress)


@pytest.fixture
def whole(new_site: Callable[[str], Site]) -> Site:
    """A ledger whose outputs this process has valued."""
    site = new_site("whole")
    _compute(site.url, site.data_dir, 1)
    assert len(site.books()) == OUTPUTS // CHUNK
    return site


def test_books_and_ledger_do_not_depend_on_the_number_of_workers(whole, new_site):
    for workers in (2, 3):
        site = new_site(f"by-{workers}")
        site.run("compute", "--chunk", str(CHUNK), "--workers", str(workers))
        assert site.books() == whole.books()
        assert site.tables() == whole.tables()
        site.run("verify")


def test_a_worker_that_is_killed_changes_nothing(whole, new_site):
    site, ended = new_site("killed"), []

    def kill_a_worker(_done: int, _total: int) -> None:
        if len(ended) < 2:
            worker = next(child for child in multiprocessing.active_children() if child.pid not in ended)
            os.kill(worker.pid, signal.SIGKILL)
            ended.append(worker.pid)

    _compute(site.url, site.data_dir, 2, kill_a_worker)
    assert len(ended) == 2
    assert site.books() == whole.books()
    assert site.tables() == whole.tables()


def _die_at_the_third_chunk(url: str, data_dir: Path) -> None:
    local.PROCESSES = multiprocessing.get_context("fork")  # this process has no threads, and has imported everything
    _compute(url, data_dir, 2, lambda done, _total: die() if done == 3 * CHUNK else None)


def test_a_killed_run_resumes_with_any_number_of_workers(whole, new_site):
    site = new_site("resumed")
    process = _FORKS.Process(target=_die_at_the_third_chunk, args=(site.url, site.data_dir))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(site.named("score_book")) == 3
    _compute(site.url, site.data_dir, 3)
    assert site.books() == whole.books()
    assert site.tables() == whole.tables()


def test_outputs_without_a_value_shift_the_borders_as_with_one_worker(new_site, inputs, tmp_path):
    model = shutil.copytree(inputs / MODEL, tmp_path / "broken")
    weights = load_file(model / "model.safetensors")
    (token,) = AutoTokenizer.from_pretrained(model)("z", add_special_tokens=False)["input_ids"]
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    index = ("index", model, inputs / "train.jsonl", "--out", tmp_path / "index", "--name", MODEL, "--rank", "2")
    rows = [output_row(n, **({"completion": " z z"} if n in {101, 107} else {})) for n in range(100, 120)]
    sites = []
    for workers in ("1", "3"):
        site = new_site(f"by-{workers}")
        site.run(*index)
        site.log("odd.jsonl", rows)
        done = site.run("compute", "--chunk", "7", "--workers", workers, code=EXIT_PARTIAL)
        assert [line.split(":")[1] for line in done.stderr.splitlines() if "not valued" in line] == [" o101", " o107"]
        sites.append(site)
    assert sites[0].books() == sites[1].books()
    assert sites[0].tables() == sites[1].tables()


def test_an_index_by_workers_or_by_slices_is_that_of_this_process(site, inputs, tmp_path):
    def build(name: str, *options: str, code: int = 0) -> Result:
        out = ("--out", tmp_path / name, "--name", MODEL, "--rank", "2")
        return site.run("index", inputs / MODEL, inputs / "train.jsonl", *out, *options, code=code)

    build("whole")
    build("by-workers", "--engine", "local", "--workers", "1")
    assert "slice 2/2 is done, 0 units" in build("by-slices", "--slice", "2/2").output
    assert "unit 0 is missing" in build("by-slices", "--merge", code=EXIT_PARTIAL).stderr
    assert "slice 1/2 is done, 1 unit" in build("by-slices", "--slice", "1/2").output
    assert "built" in build("by-slices", "--merge").output
    whole, *others = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
        for name in ("whole", "by-workers", "by-slices")
    )
    assert others == [whole, whole]
    assert len(site.named("attribution_index")) == 2, "the same index was registered three times, a slice never"
    assert "two runs" in build("no", "--slice", "1/2", "--merge", code=EXIT_USAGE).stderr
    data = (inputs / "train.jsonl", "--out", tmp_path / "whole", "--name", MODEL)
    gone = site.run("index", inputs / MODEL, *data, "--withdraw", "ben", "--workers", "2")
    assert "revised" in gone.output
    assert "revised" in site.run("index", inputs / MODEL, *data, "--update", "--workers", "2").output


def test_an_error_of_a_worker_is_the_commands(site, tmp_path):
    (tmp_path / "empty").mkdir()
    failed = site.run("compute", "--workers", "2", "--model", tmp_path / "empty", code=EXIT_FAILED)
    assert "empty" in failed.stderr
    assert site.json("status")["pending"] == OUTPUTS
    assert "--engine ray" in site.run("compute", "--address", "auto", code=EXIT_USAGE).stderr
