"""Measures of every benchmark: clocks, peak memory, the floor, and a description of the machine.

Needs torch alone, so that it also runs in the environments of other attribution libraries.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RESULTS = Path(__file__).parent / "results"


@dataclass
class Clock:
    """CPU and wall seconds of one repeat. On a GPU it waits for the device, and wall seconds count."""

    cpu: float = 0.0
    wall: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block."""
        _synchronise()
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        _synchronise()
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall

    def __add__(self, other: Clock) -> Clock:
        return Clock(self.cpu + other.cpu, self.wall + other.wall)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median(clocks: Iterable[Clock]) -> Clock:
    """Median of CPU and of wall seconds, each for itself."""
    listed = list(clocks)
    return Clock(statistics.median(c.cpu for c in listed), statistics.median(c.wall for c in listed))


@contextmanager
def floor_mode(model: nn.Module, watched: Mapping[str, nn.Module]) -> Iterator[None]:
    """Context with frozen weights and a graph that begins at the outputs of the lowest watched layers."""

    def begin(_module: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor | None:
        return None if args[0].requires_grad else y.detach().requires_grad_()

    model.eval().requires_grad_(False)
    handles = [module.register_forward_hook(begin) for module in watched.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def next_token_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Sum of the cross-entropies of all tokens (N, T) but the first of each sequence: the loss of all systems."""
    logits = model(input_ids=tokens, use_cache=False).logits
    rows = logits.flatten(0, 1)
    predicted = F.pad(tokens[:, 1:], (0, 1), value=-100).flatten()
    return F.cross_entropy(rows.float(), predicted, ignore_index=-100, reduction="sum")


def peak_bytes() -> int:
    """Return the peak of this process's resident memory.

    From /proc: getrusage's figure starts at the peak of the parent process.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found:
            return int(found.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def alone(benchmark: str, *task: str) -> dict[str, Any]:
    """Run a benchmark with `--alone` and a task in a process of its own; return the JSON of its last line."""
    command = [sys.executable, "-m", benchmark, "--alone", *task]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def environment(device: str = "cpu", packages: Iterable[str] = ("torch", "transformers")) -> dict[str, Any]:
    """Return device, machine, versions, date and load, to be printed and stored with every result."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": versions,
    }


def device_name(device: str) -> str:
    """Name of the processor or GPU, as the system gives it."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(torch.device(device)))
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.is_file() else None
    return found.group(1).strip() if found else platform.machine()


def describe(where: Mapping[str, Any]) -> str:
    """One line about the machine."""
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    return (
        f"{where['date']}, {where['device']}, {where['threads']} of {where['cores']} cores, load {where['load']}, "
        f"Python {where['python']}, {versions}"
    )


def save_results(name: str, body: Mapping[str, Any], where: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write results as JSON to `<folder>/<name>-<device>-<date>.json` and return where."""
    device = re.sub(r"[^a-z0-9]+", "-", str(where["device"]).lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{device}-{where['date']}.json"
    path.write_text(json.dumps({"environment": where, **body}, indent=1) + "\n")
    return path


class Table:
    """A Markdown table, printed a row at a time as its figures come in."""

    def __init__(self, *columns: str) -> None:
        self.row(*columns)
        self.row(*("---" for _ in columns))

    def row(self, *cells: str) -> None:
        """Print a row."""
        print("| " + " | ".join(cells) + " |", flush=True)
