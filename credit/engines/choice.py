"""Choice of an engine, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from credit.engines.engine import Engine, InProcess, Watch, ignore_workers
from credit.errors import InvalidRequestError

ENGINES = ("local", "ray")
"""Names of engines, beside this process."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Choice of an engine; nothing chosen is one worker, in this process.

    Attributes:
        name: `local` or `ray`; several workers are `local` ones unless it says otherwise.
        workers: workers at a time; None for as many as there is room for.
        address: of the Ray cluster.
        watch: hears of workers coming and going.
    """

    name: Literal["local", "ray"] | None = None
    workers: int | None = None
    address: str | None = None
    watch: Watch = ignore_workers

    def __post_init__(self) -> None:
        if self.address is not None and self.name != "ray":
            raise InvalidRequestError("--address names a Ray cluster; give it with --engine ray")

    @property
    def is_here(self) -> bool:
        """True for one worker, in this process."""
        return self.name is None and self.workers in {None, 1}

    def watched(self, watch: Watch) -> EngineChoice:
        """Return the choice with a watcher of the workers."""
        return replace(self, watch=watch)

    def engine(self, *, gpus: Sequence[str] = (), memory_each: int = 0, on_gpu: bool | None = None) -> Engine:
        """Make the engine.

        Args:
            gpus: this machine's GPUs, for `local`.
            memory_each: bytes for a worker; 0 if unknown.
            on_gpu: a worker of a cluster takes a GPU; None where the cluster has any.
        """
        if self.name == "ray":
            from credit.engines.ray import RayEngine

            address, wants = self.address or "auto", None if on_gpu is None else float(on_gpu)
            return RayEngine(self.workers, address, gpus=wants, memory_each=memory_each, watch=self.watch)
        if self.is_here:
            return InProcess()
        from credit.engines.local import LocalEngine

        return LocalEngine(self.workers, gpus, memory_each, self.watch)
