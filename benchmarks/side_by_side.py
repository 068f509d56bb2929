"""This project beside other attribution libraries: the same model, data, rank and floor, one after the other.

Speed, memory, bytes stored and the cost of valuing an output, each system in a process of its own, on one thread,
building in turn with the floor (see index_speed). That all do the same work is shown first: on a tiny model, without
projections, all must agree on the inner products of gradients, and on EK-FAC influence where they have it.

    python -m benchmarks.side_by_side              # half an hour; makes an environment for the others first
    python -m benchmarks.side_by_side --quick      # a tiny model, one repeat: does it run? not a number

The others are installed into an environment of their own (`--env`), with the torch of this one. What cannot be
installed is skipped, and said.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import Table, describe, environment, save_results
from benchmarks.models import MODELS, save_model

ROOT = Path(__file__).parent.parent
DEFAULT_ENV = Path.home() / ".cache" / "credit-rivals"


@dataclass(frozen=True)
class Package:
    """Requirements of a system for pip. `flags` correct wrong metadata."""

    requirements: tuple[str, ...]
    flags: tuple[str, ...] = ()


PACKAGES = {
    "bergson": Package(("bergson==2.5.1",)),
    "dattri-llm": Package(("dattri==0.3.0", "dattri-llm==0.1.0")),
    "kronfluence": Package(("kronfluence==1.0.1",)),
    # Its metadata ends at Python 3.10; the code runs on later ones.
    "logix": Package(("logix-ai==0.1.1",), ("--ignore-requires-python",)),
}


@dataclass(frozen=True)
class Run:
    """A system at a rank and curvature. Rank None is no projection."""

    system: str
    rank: int | None
    curvature: str

    @property
    def package(self) -> str:
        """Key of the system's package."""
        return self.system.removesuffix("-frozen")

    def __str__(self) -> str:
        return f"{self.system} | {'full' if self.rank is None else self.rank} | {self.curvature}"


def runs(ranks: tuple[int, ...]) -> list[Run]:
    """Return the compared systems at each rank: a plain store of gradients, and one with a dense Fisher."""
    found = []
    for rank in ranks:
        found += [Run("credit", rank, "none"), Run("credit", rank, "fisher")]
        found += [Run("bergson", rank, "none"), Run("bergson-frozen", rank, "none"), Run("bergson", rank, "fisher")]
        found += [Run("dattri-llm", rank, "none"), Run("logix", rank, "none"), Run("logix", rank, "fisher")]
    return [*found, Run("kronfluence", None, "ekfac")]


SCANNED = (1_000, 10_000)
"""Sizes of further stores for bergson's search at rank 16, filled with its own rows again and again."""

AGREEMENT = tuple(
    Run(system, None, curvature)
    for curvature, systems in {
        "none": ("credit", "bergson", "dattri-llm", "logix", "kronfluence"),
        "ekfac": ("credit", "kronfluence"),
    }.items()
    for system in systems
)


class Environment:
    """A virtual environment with as many of the other libraries as can be installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: dict[str, str] = {}
        self.python = folder / "bin" / "python"
        if not self.python.is_file():
            print(f"making an environment for the other libraries in {folder} ...", flush=True)
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        if (folder / ".installed").is_file():
            self.missing = json.loads((folder / ".installed").read_text())
            return
        torch_pin = f"torch=={metadata.version('torch').partition('+')[0]}"
        for system, package in PACKAGES.items():
            command = [str(self.python), "-m", "pip", "install", "--quiet", *package.flags, torch_pin]
            done = subprocess.run([*command, *package.requirements], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                self.missing[system] = errors[-1] if errors else done.stderr.strip()[-200:]
                print(f"skipped: {' '.join(package.requirements)} cannot be installed: {self.missing[system]}")
        # They come along, built for another torch than this one, and then keep transformers from being imported.
        uninstall = [str(self.python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision", "torchaudio"]
        subprocess.run(uninstall, capture_output=True, check=True)
        (folder / ".installed").write_text(json.dumps(self.missing))

    def versions(self) -> dict[str, str]:
        """Return the versions of the relevant installed packages."""
        wanted = {"torch", "transformers", "bergson", "dattri", "dattri-llm", "kronfluence", "logix-ai"}
        done = subprocess.run(
            [str(self.python), "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
        )
        return {item["name"]: item["version"] for item in json.loads(done.stdout) if item["name"] in wanted}


def write_task(folder: Path, model: str, examples: int, outputs: int, length: int) -> None:
    """Save a random model and random sequences.

    Half of each output is the beginning of a training sequence, so that some influence stands out.
    """
    vocabulary = save_model(MODELS[model], folder / "model")
    rng = np.random.default_rng(0)
    train = rng.integers(0, vocabulary, (examples, length), dtype=np.int32)
    drawn = rng.integers(0, vocabulary, (outputs, length), dtype=np.int32)
    drawn[:, : length // 2] = train[:outputs, : length // 2]
    np.save(folder / "train.npy", train)
    np.save(folder / "outputs.npy", drawn)


def execute(
    run: Run, task: Path, python: Path, batch: int, repeats: int, scans: Sequence[int] = ()
) -> dict[str, Any] | None:
    """One system in its own process; None, and a line about it, if it fails."""
    command = [str(python), "-m", "benchmarks.rivals.run", run.system, "--task", str(task), "--batch", str(batch)]
    command += ["--curvature", run.curvature, "--repeats", str(repeats)]
    command += [] if run.rank is None else ["--rank", str(run.rank)]
    command += [part for examples in scans for part in ("--scan", str(examples))]
    environment_variables = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment_variables
    )  # fmt: skip
    if done.returncode != 0:
        print(f"{run} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}", flush=True)
        return None
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def agreement(env: Environment, folder: Path) -> dict[str, float]:
    """Correlation of everybody's influence with this project's, on a tiny model, without projections.

    A Llama: its layers have no biases, which some count among the weights and others do not.
    """
    write_task(folder, "llama-tiny", examples=24, outputs=4, length=32)
    found: dict[str, float] = {}
    ours: dict[str, NDArray[Any]] = {}
    for run in AGREEMENT:
        if run.package in env.missing:
            continue
        python = Path(sys.executable) if run.system == "credit" else env.python
        if execute(run, folder, python, batch=8, repeats=1) is None:
            continue
        scores = np.load(folder / f"scores-{run.system}-None-{run.curvature}.npy").astype(np.float64)
        if run.system == "credit":
            ours[run.curvature] = scores
        elif run.curvature in ours:
            both = np.corrcoef(scores.ravel(), ours[run.curvature].ravel())
            found[f"{run.system} {run.curvature}"] = float(both[0, 1])
    return found


def row(run: Run, result: dict[str, Any], tokens: int, outputs: int) -> dict[str, Any]:
    """Figures of a system. The pass is the build without what comes after its last sequence."""
    passes = {
        unit: [build[unit] - after[unit] for build, after in zip(result["build"], result["after"], strict=True)]
        for unit in ("cpu", "wall")
    }
    floors = {unit: [clock[unit] for clock in result["floor"]] for unit in ("cpu", "wall")}
    figures: dict[str, Any] = {"system": run.system, "rank": run.rank, "curvature": run.curvature}
    figures["notes"] = result["notes"]
    for unit in ("cpu", "wall"):
        figures[f"tokens_per_{unit}_s"] = tokens / statistics.median(passes[unit])
        ratios = [floor / own for floor, own in zip(floors[unit], passes[unit], strict=True)]
        figures[f"of_floor_{unit}"] = statistics.median(ratios)
        figures[f"of_floor_{unit}_range"] = [min(ratios), max(ratios)]
    figures["floor_tokens_per_cpu_s"] = tokens / statistics.median(floors["cpu"])
    figures["after_cpu_s"] = statistics.median(clock["cpu"] for clock in result["after"])
    figures["peak_bytes"], figures["stored_bytes"] = result["peak"], result["stored"]
    figures["open_cpu_s"] = result["open"][0]["cpu"]
    figures["first_value_cpu_s"], figures["value_cpu_s"] = (clock["cpu"] / outputs for clock in result["value"])
    return figures


def cells(figures: dict[str, Any]) -> list[str]:
    """A row of the printed table."""
    low, high = figures["of_floor_cpu_range"]
    return [
        figures["system"], "full" if figures["rank"] is None else str(figures["rank"]), figures["curvature"],
        f"{figures['tokens_per_cpu_s']:,.0f} ({figures['tokens_per_wall_s']:,.0f})",
        f"{figures['of_floor_cpu']:.2f} ({low:.2f} to {high:.2f})", f"{figures['after_cpu_s']:.1f}",
        f"{figures['peak_bytes'] / 2**30:.2f}", f"{figures['stored_bytes'] / 1e6:,.1f}",
        f"{figures['first_value_cpu_s']:.2f}", f"{figures['value_cpu_s']:.2f}",
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, one repeat: a smoke test, not a number")
    parser.add_argument("--model", choices=("gpt2", "gpt2-small"), default="gpt2")
    parser.add_argument("--rank", type=int, action="append", help="may be repeated; default 16 and 64")
    parser.add_argument("--system", action="append", help="may be repeated; default all")
    parser.add_argument("--examples", type=int, default=32, help="training sequences of 256 tokens in a repeat")
    parser.add_argument("--batch", type=int, default=16, help="sequences in a batch, of every system")
    parser.add_argument("--outputs", type=int, default=8, help="outputs that are valued at once")
    parser.add_argument("--curvature", choices=("none", "fisher", "ekfac"), action="append", help="default all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--env", type=Path, default=DEFAULT_ENV, help="where the other libraries are installed")
    parser.add_argument("--no-agreement", action="store_true", help="leave out the check that all do the same work")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args(arguments)
    model, length, examples, repeats = options.model, 256, options.examples, options.repeats
    batch, outputs = options.batch, options.outputs
    if options.quick:
        model, length, examples, repeats, batch, outputs = "gpt2-tiny", 32, 16, 1, 8, 4
    torch.set_num_threads(1)
    env = Environment(options.env)
    where = environment()
    where["others"] = env.versions()
    print(f"{describe(where)}; others: {where['others']}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        correlations = {}
        if not options.no_agreement:
            correlations = agreement(env, Path(name) / "agreement")
            for system, value in correlations.items():
                print(f"correlation with this project's influence at full rank, {system}: {value:.6f}", flush=True)
        task = Path(name) / "speed"
        write_task(task, model, examples, outputs, length)
        floor = execute(Run("floor", None, "none"), task, Path(sys.executable), batch, 1)
        assert floor is not None
        print(f"{MODELS[model].title}; {examples} sequences of {length} tokens, batches of {batch}, ", end="")
        print(f"{outputs} outputs; {repeats} repeats (median); peak memory of the floor alone ", end="")
        print(f"{floor['peak'] / 2**30:.2f} GiB")
        table = Table(
            "system", "rank", "curvature", "build, tokens/CPU s (wall s)", "of floor, CPU (range)",
            "after the pass, CPU s", "peak GiB", "stored MB", "first output, CPU s", "further output, CPU s",
        )  # fmt: skip
        rows = []
        for run in runs(tuple(options.rank or ((4,) if options.quick else (16, 64)))):
            wanted = run.system in (options.system or [run.system]) and run.curvature in (
                options.curvature or [run.curvature]
            )
            if run.package in env.missing or not wanted:
                continue
            python = Path(sys.executable) if run.system == "credit" else env.python
            scanned = SCANNED if run == Run("bergson", 16, "none") else ()
            result = execute(run, task, python, batch, repeats, scanned)
            if result is not None:
                rows.append(row(run, result, examples * length, outputs))
                rows[-1]["scans"] = result["scans"]
                table.row(*cells(rows[-1]))
    for figures in rows:
        print(f"{figures['system']} {figures['curvature']}: {figures['notes']}")
        for scan in figures["scans"]:
            print(f"{figures['system']} at rank {figures['rank']}, a store of {scan['examples']:,} examples: ", end="")
            print(f"opened in {scan['open']['cpu']:.2f} CPU s, then searched at ", end="")
            print(f"{1e3 * scan['search']['cpu'] / outputs:.2f} CPU ms an output, {outputs} at once")
    if options.save:
        body = {"model": model, "examples": examples, "length": length, "floor_peak_bytes": floor["peak"]}
        print(save_results(f"side-by-side-{model}", {**body, "correlations": correlations, "rows": rows}, where))


if __name__ == "__main__":
    main()
