"""`credit compute` under real SIGKILLs, beside another run, and twice."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from credit.cli.main import cli
from credit.errors import EXIT_FAILED, EXIT_LOCKED, EXIT_PARTIAL, ValuationError
from credit.pipeline.compute import ComputeSettings, compute
from credit.pipeline.workspace import Workspace
from credit.records import MICRO, LoggedOutput
from credit.valuation import AttributionIndex, requirements
from credit.valuation.valuing_cost import needs_of
from tests.models import sentence
from tests.pipeline.samples import FIRST, MODEL, OUTPUTS, Site, output_row
from tests.processes import FORKS

CHUNK = 4
KILLS = {"sqlite": 10, "postgresql": 4}
"""Kills that must have landed between the first and the last step of a run."""


def _compute(environment: dict[str, str], ready: Connection) -> None:
    """`credit compute --chunk 4`, in a process of its own that says when it starts."""
    torch.set_num_threads(1)  # threads that wait for each other would burn the cores that the next process needs
    os.environ.update(environment)
    ready.send(None)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cli(["compute", "--chunk", str(CHUNK)])


def _start(site: Site) -> tuple[BaseProcess, float]:
    """Start a run; return it with the moment at which it began."""
    ours, theirs = FORKS.Pipe()
    process = FORKS.Process(target=_compute, args=(site.environment, theirs))
    process.start()
    theirs.close()
    ours.recv()
    return process, time.monotonic()


def _run_killed_at_random(site: Site, rng: random.Random, seconds: float) -> int:
    """Run until one finishes, each killed after up to `seconds`; return how many kills landed inside the work.

    A machine that is busier than it was when `seconds` were measured would let no run come as far as a chunk: after a
    run that brought nothing, the next one has longer. A server frees the lock of a killed run when it notices that
    its client is gone; until then a run exits 11, as it should, and the next one goes on.
    """
    landed, pending = 0, OUTPUTS
    for _ in range(200):
        process, _ = _start(site)
        process.join(rng.uniform(0, seconds))
        process.kill()
        process.join()
        if process.exitcode == 0:
            return landed
        assert process.exitcode in {-9, EXIT_LOCKED}, f"a run ended by itself, with {process.exitcode}"
        left = int(site.json("status")["pending"])
        landed += process.exitcode == -9 and 0 < left < OUTPUTS
        seconds *= 1.2 if left == pending else 1.0
        pending = left
    raise AssertionError("200 runs, each killed, did not finish the work; does a new run go on where one was killed?")


def test_killed_at_random_moments_it_ends_in_the_ledger_of_an_uninterrupted_run(make_on_engine, engine_name):
    whole = make_on_engine("whole")
    process, began = _start(whole)
    process.join()
    seconds = time.monotonic() - began
    assert process.exitcode == 0
    tables, books = whole.tables(), whole.books()
    assert len(books) == OUTPUTS / CHUNK

    rng, landed, round_ = random.Random(7), 0, 0
    while landed < KILLS[engine_name]:
        killed = make_on_engine(f"killed-{round_}")
        landed += _run_killed_at_random(killed, rng, seconds)
        for name, rows in tables.items():
            assert killed.tables()[name] == rows, f"{name} differs after kills"
        assert killed.books() == books
        killed.run("verify")
        round_ += 1


def _compute_and_wait(url: str, data_dir: Path, channel: Connection) -> None:
    """Compute, and after every chunk wait until it is said to go on."""

    def after_a_chunk(done: int, total: int) -> None:
        channel.send(done)
        channel.recv()

    torch.set_num_threads(1)
    compute(Workspace(url, data_dir), ComputeSettings(chunk=30), after_a_chunk)


def test_of_two_runs_at_once_one_works_and_the_other_exits_11(make_on_engine):
    site = make_on_engine("site")
    ours, theirs = FORKS.Pipe()
    first = FORKS.Process(target=_compute_and_wait, args=(site.url, site.data_dir, theirs))
    first.start()
    theirs.close()  # so that a first run which dies ends our waiting for it
    assert ours.recv() == 30, "the first run has posted a chunk, holds the lock and waits for us"
    second, _ = _start(site)
    second.join()
    pending = site.json("status")["pending"]
    for _ in range(2):
        ours.send("go on")
    first.join()
    assert second.exitcode == EXIT_LOCKED
    assert pending == OUTPUTS - 30, "the second run did something"
    assert first.exitcode == 0
    assert site.json("status")["pending"] == 0
    site.run("verify")


def test_an_output_that_cannot_be_valued_does_not_shift_the_chunks_of_a_continued_run(new_site):
    # The tiny tokenizer has no chat template, so a chat stays pending for ever, before outputs that are valued.
    chat = output_row(100, prompt=None, messages=[{"role": "user", "content": "sing"}])
    settings = ComputeSettings(chunk=CHUNK)

    def stop(done: int, total: int) -> None:
        if done > OUTPUTS:
            raise KeyboardInterrupt

    ledgers = []
    for name in ("whole", "stopped"):
        site = new_site(name)
        site.log("chats.jsonl", [chat, *(output_row(number) for number in range(101, 112))])
        workspace = Workspace(site.url, site.data_dir)
        if name == "stopped":
            with pytest.raises(KeyboardInterrupt):
                compute(workspace, settings, stop)
        report = compute(workspace, settings)
        assert [reason.partition(":")[0] for reason in report.refused] == ["o100"]
        assert "o100" in site.run("compute", code=EXIT_PARTIAL).stderr
        ledgers.append((site.tables(), site.books()))
    assert ledgers[0] == ledgers[1]


def test_an_output_whose_gradient_is_no_number_is_named_and_holds_up_no_other(new_site, monkeypatch):
    """Its chunk is filled up by others, so that a killed run goes on with the same borders."""
    value = AttributionIndex.value

    def fail_on_o4(index: AttributionIndex, model: Any, outputs: Sequence[LoggedOutput], **rest: Any) -> Any:
        if any(item.external_id == "o4" for item in outputs):
            raise ValuationError("an influence is not a finite number")
        return value(index, model, outputs, **rest)

    monkeypatch.setattr(AttributionIndex, "value", fail_on_o4)
    site = new_site("site")
    refused = site.run("compute", "--chunk", str(CHUNK), code=EXIT_PARTIAL)
    assert "not valued: o4: an influence is not a finite number" in refused.stderr
    assert "credit outputs unvalue --help" in refused.stdout
    sizes = [row["output_count"] for row in site.named("score_book")]
    assert sizes == [CHUNK] * (OUTPUTS // CHUNK - 1) + [CHUNK - 1]


def test_an_output_that_the_model_answers_with_nan_is_named_and_the_others_are_valued(site, tmp_path):
    model = shutil.copytree(site.folder / MODEL, tmp_path / "broken")
    weights = load_file(model / "model.safetensors")
    (token,) = AutoTokenizer.from_pretrained(model)("z", add_special_tokens=False)["input_ids"]
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    site.run(
        "index", model, site.folder / "train.jsonl", "--out", tmp_path / "broken-index", "--name", MODEL, "--rank", "2"
    )
    site.log("odd.jsonl", [output_row(100, completion=" z z"), output_row(101)])
    refused = site.run("compute", "--chunk", str(OUTPUTS + 1), code=EXIT_PARTIAL)
    assert "not valued: o100: its gradient or influence is not a finite number" in refused.stderr
    assert [row["output_count"] for row in site.named("score_book")] == [OUTPUTS + 1]
    site.run("verify")


def test_a_dry_run_tells_time_and_memory_and_writes_nothing(site, tmp_path):
    before = site.tables()
    (plan,) = site.json("compute", "--dry-run", "--chunk", "7")["models"]
    assert (plan["model"], plan["outputs"], plan["steps"]) == (MODEL, OUTPUTS, -(-OUTPUTS // 7))
    assert plan["workers"] == 1
    assert plan["seconds"] > 0
    assert plan["read_bytes"] == sum(path.stat().st_size for path in (site.folder / "index").glob("rows-*"))
    (larger,) = site.json("compute", "--dry-run", "--chunk", str(OUTPUTS))["models"]
    assert larger["memory_bytes"] > plan["memory_bytes"]
    several = site.run("compute", "--dry-run", "--chunk", "7", "--workers", "2").stdout
    assert f"{OUTPUTS} outputs in {-(-OUTPUTS // 7)} chunks" in several
    assert "for 2 workers of" in several
    # An index that is only named, at a place that the ledger does not know.
    moved = shutil.copytree(site.folder / "index", tmp_path / "moved")
    assert site.json("compute", "--dry-run", "--index", moved)["models"][0]["index"] == str(moved)
    assert site.tables() == before


def test_a_chunk_beyond_the_memory_is_refused_with_one_that_fits(site, tmp_path, monkeypatch):
    needs = needs_of(AttributionIndex.open(site.folder / "index"))
    report = tmp_path / "meminfo"
    report.write_text(f"MemAvailable: {(needs.memory_bytes(5) + needs.output_bytes // 2) // 1024} kB\n")
    monkeypatch.setattr(requirements, "MEMINFO", report)
    refused = site.run("compute", code=EXIT_FAILED)
    assert "of memory beside the model" in refused.stderr
    assert refused.stderr.strip().endswith("take --chunk 5")
    assert not site.named("score_book")
    assert site.json("compute", "--chunk", "5")["valued"] == OUTPUTS


def test_outputs_are_valued_by_the_index_that_is_named_and_else_by_the_newest(new_site, tmp_path):
    site = new_site("site")
    newer = tmp_path / "newer"
    site.run("index", site.folder / MODEL, site.folder / "train.jsonl", "--out", newer, "--name", MODEL, "--rank", "2")
    site.run("compute", "--index", site.folder / "index")
    site.log("later.jsonl", [output_row(100)])
    site.run("compute")
    older, newest = (row["id"] for row in site.named("attribution_index"))
    assert [row["index_id"] for row in site.named("compute_run")] == [older, newest]


def test_a_provider_taken_out_of_an_index_and_put_back_leaves_the_newest_one(new_site, tmp_path):
    site = new_site("site")
    folder = shutil.copytree(site.folder / "index", tmp_path / "index")
    revise = ("index", site.folder / MODEL, site.folder / "train.jsonl", "--out", folder, "--name", MODEL)
    provider = AttributionIndex.open(folder).groups[0].provider
    site.run(*revise, "--withdraw", provider)
    site.run("compute")
    site.run(*revise, "--update")
    site.log("later.jsonl", [output_row(100)])
    site.run("compute")
    assert site.json("status")["pending"] == 0
    _, without, back = (row["id"] for row in site.named("attribution_index"))
    assert [row["index_id"] for row in site.named("compute_run")] == [without, back]
    gone = site.run("explain", "output", site.named("output")[0]["external_id"], code=EXIT_FAILED)
    assert "holds another index than the one registered" in gone.stderr, "not explained by what did not value it"
    assert site.run("explain", "output", "o100", site.folder / "train.jsonl").output


def test_a_chat_that_the_models_template_refuses_is_named_and_the_others_are_valued(site, tmp_path):
    model = shutil.copytree(site.folder / MODEL, tmp_path / "chats")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system, please') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    tokenizer.save_pretrained(model)
    site.run(
        "index", model, site.folder / "train.jsonl", "--out", tmp_path / "chats-index", "--name", MODEL, "--rank", "2"
    )
    user = {"role": "user", "content": "sing"}
    chats = [[{"role": "system", "content": "be brief"}, user], [user]]
    site.log("odd.jsonl", [output_row(100 + i, prompt=None, messages=chat) for i, chat in enumerate(chats)])
    refused = site.run("compute", code=EXIT_PARTIAL)
    assert "not valued: o100: the model's chat template refuses these messages (no system, please)" in refused.stderr
    assert [row["output_count"] for row in site.named("score_book")] == [OUTPUTS + 1]


def test_thoughts_are_context_or_paid_for_by_policy_and_statements_say_which(new_site, tmp_path):
    thoughts, answer = sentence(41, 12), sentence(42, 6)
    row = output_row(102, thoughts=thoughts, completion=answer)
    # The same call of a server without a parser, and one without thoughts.
    rows = [row, row | {"id": "o104", "thoughts": None, "completion": f"<think>{thoughts}</think>{answer}"}]
    rows.append(output_row(100))
    effects, said = {}, {}
    for policy in ("context", "paid"):
        site = new_site(policy)
        site.log("thoughts.jsonl", rows)
        site.run("compute", "--thoughts", policy)
        books = pl.concat(pl.read_parquet(io.BytesIO(book)) for book in site.books().values())
        names = {row["id"]: row["external_id"] for row in site.named("output")}
        effects[policy] = {names[number]: effect for number, effect in _effects(books)}
        site.run("pool", "add", FIRST, "100.00", "EUR")
        site.close(FIRST)
        site.run("export", FIRST, "--out", tmp_path / f"{policy}-export")
        said[policy] = (tmp_path / f"{policy}-export" / "ann" / "statement.html").read_text()
    context, paid = effects["context"], effects["paid"]
    assert context["o100"] == paid["o100"]
    assert context["o102"] != paid["o102"]
    assert (context["o102"], paid["o102"]) == (context["o104"], paid["o104"]), "however they were logged"
    assert "thoughts before an answer are context, and not paid for" in said["context"]
    assert "thoughts are paid for with its answer" in said["paid"]


def _effects(books: pl.DataFrame) -> Iterator[tuple[int, list[tuple[object, ...]]]]:
    """Yield each output with its effects by provider and collection."""
    for (number,), rows in books.group_by("output_id"):
        yield number, sorted(rows.select("provider", "collection", "effect").iter_rows())


def test_an_output_longer_than_the_models_context_is_valued_and_named(site):
    site.log("long.jsonl", [output_row(100, prompt="the cat", completion=" ".join(["ships"] * 200))])
    done = site.run("compute")
    assert re.search(r"o100 has \d+ tokens with its prompt, and the model reads 64: valued in \d+ windows", done.stderr)
    assert site.json("status")["pending"] == 0


def test_a_close_names_what_holds_it_up_and_pays_the_others_once_it_is_unvalued(site):
    chat = output_row(100, prompt=None, messages=[{"role": "user", "content": "sing"}])
    site.log("chats.jsonl", [chat])
    assert "cannot be valued, and hold up a close" in site.run("compute", code=EXIT_PARTIAL).output
    site.run("pool", "add", FIRST, "100.00", "EUR")
    assert 'credit outputs unvalue o100 --reason "..."' in site.close(FIRST, code=1).stderr
    before = site.tables()
    site.run("outputs", "unvalue", "o100", "o101", "--reason", "the model has no chat template", code=1)
    assert site.tables() == before, "all of them, or none"
    site.run("outputs", "unvalue", "o100", "--reason", "the model has no chat template")
    assert "o100 (2.000000 credits, 2025-03): unvalued since" in site.run("outputs", "list").output
    assert "1 unvalued" in site.run("status").output
    assert "nothing to do" in site.run("compute").output
    assert "unvalued, and out of this close: o100" in site.close(FIRST).output
    for row in site.named("statement"):
        assert json.loads(row["body_json"])["credits"]["outputs_unvalued"] == 1
        assert row["body_json"].count("o100") == 0, "not by name: it may be about anybody"
    site.run("outputs", "restore", "o100", "--reason", "the new model has one")
    assert "0 outputs pending" not in site.run("outputs", "list", "--history").output
    site.run("verify")


def test_a_second_run_does_nothing(site):
    assert site.json("compute")["valued"] == OUTPUTS
    tables, books = site.tables(), site.books()
    assert "nothing to do" in site.run("compute").output
    assert site.tables() == tables
    assert site.books() == books


def test_the_size_of_chunks_changes_no_total(new_site):
    issued = []
    for chunk in (1, 7, OUTPUTS):
        copy = new_site(f"chunk-{chunk}")
        issued.append(copy.json("compute", "--chunk", str(chunk))["credit_micro"])
        assert len(copy.books()) == -(-OUTPUTS // chunk)
    assert set(issued) == {sum(1 + number % 3 for number in range(OUTPUTS)) * MICRO}
