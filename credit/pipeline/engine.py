"""Engine for the work with a model, by the choice of a person and the machine's means."""

from __future__ import annotations

import os
from pathlib import Path

from credit.engines import Engine, EngineChoice

_PROGRAM = 1 << 30
"""Memory of a worker beside its model, roughly, in bytes."""


def engine_for(choice: EngineChoice, device: str, model: Path, work_bytes: int = 0) -> Engine:
    """Make the chosen engine for work with a model.

    Args:
        choice: the engine.
        device: of the work. With `auto` and `cuda`, each worker has a GPU of its own, as far as there are any.
        model: folder of the model. Its size tells how many workers fit into memory.
        work_bytes: memory of the work of one worker beside its model, if known.
    """
    import torch

    gpus: list[str] = []
    if device in {"auto", "cuda"}:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
    weights = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    # A model in bf16 has twice the size in fp32.
    return choice.engine(
        gpus=gpus, memory_each=2 * weights + _PROGRAM + work_bytes, on_gpu=False if device == "cpu" else None
    )
