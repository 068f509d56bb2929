"""Engines: they run the tasks of a job in one process, in all of a machine's, or in those of a Ray cluster.

Reading order: `engine` is the seam, and runs in this process; `crew` gives tasks to workers, and repeats those of dead
ones; `local` has processes for workers, `ray` actors; `choice` makes an engine from its name. `slices`
need no engine.

A result must follow from its task alone. Then every engine, number of workers and order gives the same results.
"""

from credit.engines.choice import EngineChoice
from credit.engines.engine import Engine, InProcess, Job, Workers
from credit.engines.slices import Slice

__all__ = ["Engine", "EngineChoice", "InProcess", "Job", "Slice", "Workers"]
