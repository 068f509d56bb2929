"""Memory and time of a valuation, before it starts."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from benchmarks.measure import peak_bytes
from benchmarks.synthetic import write_index
from credit.errors import ValuationError
from credit.records import LoggedOutput
from credit.valuation import AttributionIndex, build_index, load_model
from credit.valuation.requirements import valuing_needs
from credit.valuation.valuing_cost import check_valuing, needs_of, probe_valuing
from tests.models import hidden_settings, save_tiny_model

MB = 10**6
GROUPS, ROWS, OUTPUTS = 2_000, 20, 500


def test_needs_are_those_worked_out_by_hand():
    needs = valuing_needs(40_000, 2_000, [300, 100], "fisher", read_bytes=7)
    shard = 40_000 * 400 * 4 + 40_000 * 300 * 4  # all rows, and one layer of them
    assert needs.fixed_bytes == (300**2 + 100**2) * 4 + shard + 6 * 8 * 2**21
    assert needs.output_bytes == 2 * 400 * 4 + 3 * 40_000 * 4 + 40_000 * 5 + 2_000 * 200
    assert needs.memory_bytes(10) == needs.fixed_bytes + 10 * needs.output_bytes
    assert needs.most_outputs(needs.memory_bytes(10)) == 10
    assert needs.most_outputs(needs.memory_bytes(10) - 1) == 9
    assert needs.most_outputs(1) == 0
    two = valuing_needs(40_000, 2_000, [300, 100], "fisher", read_bytes=7, models=2)
    assert two.read_bytes == 14
    assert two.output_bytes == needs.output_bytes + 40_000 * 4


def _outputs(count: int) -> list[LoggedOutput]:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return [LoggedOutput("own", str(number), moment, "tiny", f"salt wind tide {number}") for number in range(count)]


def _peak_of_valuing(channel: Connection, model_path: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    model = load_model(model_path, dtype="fp32", device="cpu")
    index, outputs = AttributionIndex.open(folder), _outputs(OUTPUTS)
    index.value(model, outputs[:1])
    before = peak_bytes()
    index.value(model, outputs)
    channel.send((needs_of(index), peak_bytes() - before))


def test_the_estimate_is_what_valuing_takes(tmp_path):
    path = save_tiny_model(tmp_path / "model")
    write_index(
        tmp_path / "index", load_model(path, dtype="fp32", device="cpu"), rank=2, groups=GROUPS, rows=ROWS,
        examples=GROUPS * ROWS,
    )  # fmt: skip
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    # A fork would use again what the process of the tests has freed.
    child = multiprocessing.get_context("spawn").Process(
        target=_peak_of_valuing, args=(theirs, path, tmp_path / "index")
    )
    child.start()
    theirs.close()
    needs, grown = ours.recv()
    child.join()
    announced = needs.memory_bytes(OUTPUTS)
    assert announced > 400 * MB, "too little to be told from the noise"
    assert 0.3 < grown / announced < 1.2, f"{announced / MB:.0f} MB announced, but memory grew by {grown / MB:.0f} MB"


def test_what_does_not_fit_is_refused_with_the_chunk_that_does(machine_with):
    needs = valuing_needs(1_000, 10, [100], "none", read_bytes=0)
    machine_with(needs.memory_bytes(100) + needs.output_bytes // 2)
    check_valuing(needs, 100)
    with pytest.raises(ValuationError, match=r"valuing 4096 outputs together needs .* take --chunk 100$"):
        check_valuing(needs, 4096)
    with pytest.raises(ValuationError, match=r"2 times .* take --workers 1$"):
        check_valuing(needs, 100, workers=2)
    machine_with(10 * MB)
    with pytest.raises(ValuationError, match="a machine with more memory"):
        check_valuing(needs, 1)


def test_a_probe_tells_time_and_keeps_nothing(model, data, outputs, out):
    build_index(model, data, out, hidden_settings(rank=4), name="tiny")
    index = AttributionIndex.open(out)
    before = index.value(model, outputs)
    cost = probe_valuing(index, model, outputs, step=4096, echo=16)
    assert cost.output_seconds > 0
    assert cost.step_seconds > 0
    assert cost.needs.batch_bytes > 0
    assert cost.needs.memory_bytes(1) > needs_of(index).memory_bytes(1)
    assert torch.equal(index.value(model, outputs).influence, before.influence)
