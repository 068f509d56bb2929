"""The benchmarks run, on models and stores too small for their figures to mean anything."""

import json

import numpy as np
import pytest

from benchmarks import engines, in_parts, index_speed, opening, valuing_cost, valuing_memory
from benchmarks.models import MODELS, save_model
from benchmarks.rivals.ours import Ours
from benchmarks.rivals.run import Floor, measure
from benchmarks.rivals.task import Task
from benchmarks.side_by_side import write_task
from benchmarks.synthetic import write_index
from credit.engines import EngineChoice
from credit.valuation import AttributionIndex, load_model


def test_index_speed_measures_every_kind_of_index_against_the_floor(capsys):
    index_speed.main(["--quick", "--no-memory", "--model", "llama-tiny"])
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[2:] == ["head r8", "fisher r8", "ekfac r8", "moments"]


def test_the_flops_of_the_floor_are_those_of_its_matrix_products():
    bench = index_speed.Bench(index_speed.Work("llama-tiny", "cpu", "fp32", 32, 2, 1))
    attention, feed_forward, head = 2 * 64 * 64 + 2 * 64 * 32, 3 * 64 * 128, 64 * 512
    products = 4 * (2 * (attention + feed_forward) + head)
    scores = 2 * (4 + 8) * 32 * 64
    assert index_speed.useful_flops(bench.model.module, 32, backward=True) == products + scores
    assert index_speed.useful_flops(bench.model.module, 32, backward=False) == products / 2 + scores / 3


def test_valuing_cost_prints_all_of_its_tables(capsys):
    valuing_cost.main(["--quick"])
    printed = capsys.readouterr().out
    for column in (
        "of floor",
        "training examples",
        "bare matrix products",
        "scan / folded",
        "extrapolated, not measured",
    ):
        assert column in printed


def test_opening_runs_in_a_process_of_its_own(capsys):
    opening.main(["--quick"])
    assert "| 4, 3, fp32 |" in capsys.readouterr().out


def test_the_memory_of_valuing_is_measured_beside_what_is_announced(capsys):
    valuing_memory.main(["--quick"])
    rows = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    assert [row[1:3] for row in rows if len(row) == 7][2:] == [["4", "2"], ["8", "5"]]


def test_a_model_on_disk_and_in_memory_are_measured_on_the_same_batch(tmp_path, capsys):
    in_parts.save(tmp_path, quick=True)
    found = []
    for place in ("in memory", "on disk"):
        in_parts.run(tmp_path, "all layers", place)
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["sum"] == found[1]["sum"] != 0
    assert min(each["peak"] for each in found) > 0


def test_a_synthetic_index_is_one_that_the_engine_opens(tmp_path):
    save_model(MODELS["gpt2-tiny"], tmp_path / "model")
    model = load_model(tmp_path / "model", dtype="fp32", device="cpu")
    write_index(tmp_path / "index", model, rank=2, groups=3, rows=4, examples=50)
    manifest = AttributionIndex.open(tmp_path / "index").manifest
    assert manifest.examples == 50
    assert [layout.stop - layout.start for layout in manifest.groups] == [4, 4, 4]


@pytest.mark.parametrize("curvature", ["none", "fisher"])
def test_this_project_does_the_task_that_the_others_are_given(tmp_path, curvature):
    write_task(tmp_path, "gpt2-tiny", examples=6, outputs=2, length=16)
    task = Task(tmp_path, rank=4, curvature=curvature, batch=3)
    result = measure(Ours(task), Floor(task), task, "credit", repeats=1)
    scores = np.load(tmp_path / f"scores-credit-4-{curvature}.npy")
    assert scores.shape == (2, 6)
    assert scores.argmax(1).tolist() == [0, 1]  # half of each output is the training sequence of its number
    assert json.loads(json.dumps(result))["stored"] > 0


def test_engines_are_measured_by_the_time_of_their_processes(tmp_path):
    engines.prepare(tmp_path, engines.QUICK)
    found = engines.run(tmp_path, EngineChoice())
    assert found["cpu"] > 0
    assert len(found["digest"]) == 64
