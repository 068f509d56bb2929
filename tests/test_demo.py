"""The built wheel, away from the checkout, runs the demo: its migrations and templates travel inside it."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LESS_TEXT = ("--kilobytes", "40")
"""As much as the demo takes by itself would take twice as long, and show no more."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the unpacked wheel; its dependencies are those of the running environment."""
    dist, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    for command in (
        ["build", "--wheel", "--outdir", str(dist), str(ROOT)],
        [
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(site),
            "--no-index",
            "--find-links",
            str(dist),
            "credit",
        ],
    ):
        done = subprocess.run([sys.executable, "-m", *command], text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return site


def _run(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CREDIT_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "COLUMNS": "140"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_runs_the_demo_from_an_empty_folder_and_again(installed, tmp_path):
    where = _run(installed, tmp_path, "-c", "import credit; print(credit.__file__)")
    assert where.startswith(str(installed)), "the checkout was imported instead of the wheel"
    printed = _run(installed, tmp_path, "-m", "credit", "demo", *LESS_TEXT)
    assert "Starting clean" in printed
    losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", printed)]
    assert min(losses[-3:]) < 0.6 * losses[0], "the model did not learn"
    hits, checked = re.search(r"\((\d+)%\)|$", printed), re.search(r"Of (\d+) true continuations", printed)
    assert checked is not None
    assert int(checked[1]) > 40
    assert hits is not None
    assert int(hits[1]) > 40, "attribution is little better than chance (1 in 8 providers)"
    folder = tmp_path / "credit-demo"
    assert "problem" not in _run(installed, folder, "-m", "credit", "verify")
    exported = sorted(path.name for path in (folder / "export-2026-01").iterdir())
    assert exported == ["click", "jinja2", "polars", "rich", "sqlalchemy", "torch", "transformers"]
    with (folder / "export-2026-01" / "click" / "outputs.csv").open(newline="") as file:
        names = {row["output_id"] for row in csv.DictReader(file)}
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{32}", name) for name in names), "an id of the log reached a provider"
    again = _run(installed, tmp_path, "-m", "credit", "demo", *LESS_TEXT)
    assert "Resuming" in again
    assert again.split("$ credit compute")[1] == printed.split("$ credit compute")[1], "the same model, another result"


def test_a_folder_that_is_no_demo_is_left_alone(installed, tmp_path):
    precious = tmp_path / "credit-demo" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("precious")
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-m", "credit", "demo"],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "holds no demo" in done.stderr
    assert precious.read_text() == "precious"
