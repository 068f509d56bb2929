"""Batches that do not fit into memory are split, and nothing is counted twice."""

from __future__ import annotations

import multiprocessing
import re
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from credit.errors import ValuationError
from credit.records import TrainingRecord
from credit.valuation import AttributionIndex, build_index, load_model
from credit.valuation.batches import by_window, in_batches, is_out_of_memory, one_behind
from credit.valuation.layers import choose_layers
from credit.valuation.manifest import IndexSettings
from credit.valuation.moments import second_moments
from tests.models import HIDDEN, hidden_settings, tiny_tokenizer
from tests.valuation.faults import GPU_ERROR, memory_for


def _cpu_error() -> RuntimeError:
    """What torch really raises where memory ends: no machine has a petabyte."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    return caught.value


def _files(folder: Path) -> Mapping[str, str]:
    return AttributionIndex.open(folder).manifest.files


def _rows(folder: Path, device: torch.device) -> dict[str, Tensor]:
    index = AttributionIndex.open(folder)
    return {name: rows for shard in index.shards(device) for name, rows in shard}


@pytest.mark.parametrize("during", ["forward", "backward"])
@pytest.mark.parametrize("curvature", ["fisher", "ekfac"])
def test_a_build_that_runs_out_of_memory_splits_its_batches_and_ends_with_the_same_sums(
    model, data, outputs, tmp_path, during, curvature
):
    settings = hidden_settings(rank=3, rows_per_group=4, curvature=curvature)
    build_index(model, data, tmp_path / "roomy", settings, name="tiny")
    with memory_for(model.module, 40, during=during) as tried:
        build_index(model, data, tmp_path / "tight", settings, name="tiny")
        tight = AttributionIndex.open(tmp_path / "tight").value(model, outputs)
    assert max(tried) > 40, "nothing had to be split"
    for name, rows in _rows(tmp_path / "roomy", model.device).items():
        torch.testing.assert_close(
            _rows(tmp_path / "tight", model.device)[name], rows, rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )
    roomy = AttributionIndex.open(tmp_path / "roomy").value(model, outputs)
    torch.testing.assert_close(tight.effect(), roomy.effect(), rtol=1e-6, atol=1e-12)
    assert _files(tmp_path / "tight").keys() == _files(tmp_path / "roomy").keys()
    assert all(p.requires_grad for p in model.module.parameters())


def _build_in_little_memory(
    channel: Connection, folder: Path, data: Sequence[TrainingRecord], settings: IndexSettings
) -> None:
    """In a process of its own, which cannot have 100 MB more than it has now: report the tokens of all batches."""
    torch.set_num_threads(1)
    model = load_model(folder / "model", dtype="fp32", device="cpu")
    build_index(model, data, folder / "roomy", settings, name="wide", tokens_per_batch=300)
    tried: list[int] = []
    model.module.get_input_embeddings().register_forward_pre_hook(lambda _module, args: tried.append(args[0].numel()))
    has = int(re.search(r"VmSize:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (has + 100_000_000, resource.RLIM_INFINITY))
    build_index(model, data, folder / "tight", settings, name="wide", tokens_per_batch=10**6)
    channel.send(tried)


def test_where_memory_really_ends_batches_are_split(data, tmp_path):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16384, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    many = [replace(record, id=f"{record.id}-{copy}") for copy in range(12) for record in data]
    settings = hidden_settings(rank=3, rows_per_group=4, curvature="ekfac")
    anew = multiprocessing.get_context("spawn")
    ours, theirs = anew.Pipe(duplex=False)
    child = anew.Process(target=_build_in_little_memory, args=(theirs, tmp_path, many, settings))
    child.start()
    theirs.close()
    tried = ours.recv()
    child.join()
    everything = sum(w.size for record in many for w in load_model(tmp_path / "model").encoder(64).training(record))
    assert max(tried) >= everything, "all was tried at once"
    assert max(tried[-3:]) < everything / 2
    cpu = torch.device("cpu")
    for name, rows in _rows(tmp_path / "roomy", cpu).items():
        torch.testing.assert_close(_rows(tmp_path / "tight", cpu)[name], rows, rtol=1e-4, atol=1e-5)


def test_what_did_not_fit_is_not_tried_again(model, data, out):
    with memory_for(model.module, 40, during="forward") as tried:
        build_index(model, data, out, hidden_settings(rank=3), name="tiny", tokens_per_batch=100)
    failed = [size for size in tried if size > 40]
    assert 1 <= len(failed) <= 3, f"sizes tried: {tried}"


def test_an_example_that_does_not_fit_alone_is_named_with_the_remedy(model, data, out):
    with (
        memory_for(model.module, 5, during="backward", error=_cpu_error()),
        pytest.raises(ValuationError, match=r"(ann|ben|cleo)/.*tokens\) does not fit .* even alone .*--max-length"),
    ):
        build_index(model, data, out, hidden_settings(rank=3), name="tiny")
    assert not (out / "manifest.json").exists()


def test_moments_that_were_added_in_part_are_begun_again(model, data):
    layers = choose_layers(model.module, HIDDEN)
    sample = [e for record in data for e in model.encoder(64).training(record)]
    roomy = second_moments(model, layers, sample, tokens_per_batch=400).means()
    with memory_for(model.module, 60, during="backward") as tried:
        tight = second_moments(model, layers, sample, tokens_per_batch=400).means()
    assert max(tried) > 60
    for name, moment in roomy.items():
        torch.testing.assert_close(tight[name].a, moment.a, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(tight[name].b, moment.b, rtol=1e-9, atol=1e-12)
    with memory_for(model.module, 5, during="forward"), pytest.raises(ValuationError, match="do not fit"):
        second_moments(model, layers, sample, tokens_per_batch=400)


def test_every_example_is_run_once_whatever_fits(model, data):
    examples = [e for record in data for e in model.encoder(64).training(record)]
    for limit in (1, 30, 64, 200):

        def run(batch: Sequence[Any], limit: int = limit) -> int:
            if len(batch) > 1 and max(reading.window.size for reading in batch) * len(batch) > limit:
                raise GPU_ERROR
            return len(batch)

        done = list(in_batches(model, by_window(examples), 300, run))
        assert sorted(p for batch, _ in done for r in batch for p in r.places) == list(range(len(examples)))
        assert all(count == len(batch) for batch, count in done)


def test_other_errors_are_not_taken_for_a_lack_of_memory(model, data, out):
    assert is_out_of_memory(_cpu_error())
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    with (
        memory_for(model.module, 40, during="forward", error=RuntimeError("shape mismatch")) as tried,
        pytest.raises(RuntimeError, match="shape mismatch"),
    ):
        build_index(model, data, out, hidden_settings(rank=3), name="tiny")
    assert len(tried) == 1


@pytest.mark.parametrize(("device", "ahead"), [("cpu", 1), ("cuda", 2)])
def test_on_a_gpu_a_batch_is_looked_at_when_the_next_was_launched(device, ahead):
    launched = []

    def launch() -> Iterator[int]:
        for number in range(5):
            launched.append(number)
            yield number

    seen = []
    for number in one_behind(launch(), torch.device(device)):
        assert len(launched) == min(number + ahead, 5)
        seen.append(number)
    assert seen == list(range(5))
    assert list(one_behind([], torch.device(device))) == []
