"""Cost of valuing outputs by an index: memory from shapes alone, and time from a few outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from credit.errors import ValuationError
from credit.valuation.batches import tokens_in_batch
from credit.valuation.example_store import HeldExamples
from credit.valuation.index import AttributionIndex
from credit.valuation.influence import influence
from credit.valuation.probe import probe_gradients, timed
from credit.valuation.projection import gradient_widths
from credit.valuation.requirements import ValuingNeeds, available_memory, size_in_words, valuing_needs
from credit.valuation.task import Task, device_of

_TRIED = 64
"""Outputs multiplied with a shard to time it."""


@dataclass(frozen=True, slots=True)
class ValuingCost:
    """Cost of valuing outputs on this machine.

    Attributes:
        needs: memory, with that of a batch.
        output_seconds: seconds for an output of the size of those tried.
        step_seconds: seconds to read all rows and multiply them, once for each step.
    """

    needs: ValuingNeeds
    output_seconds: float
    step_seconds: float


def needs_of(index: AttributionIndex) -> ValuingNeeds:
    """Return the memory to value outputs by an index, without that of a batch."""
    manifest = index.manifest
    size = sum((index.folder / shard).stat().st_size for shard in manifest.shards)
    return valuing_needs(
        len(index.rows.count),
        index.rows.groups,
        list(gradient_widths(manifest.layers, index.projections).values()),
        manifest.settings.curvature,
        read_bytes=size,
        models=1 + len(index.further),
    )


def check_valuing(needs: ValuingNeeds, outputs: int, workers: int = 1) -> None:
    """Refuse to value more outputs together than fit into memory.

    Args:
        needs: of the index.
        outputs: outputs in a step.
        workers: steps at a time on this machine.

    Raises:
        ValuationError: with the number of outputs that would fit.
    """
    available, asked = available_memory(torch.device("cpu")), workers * needs.memory_bytes(outputs)
    if available is None or asked <= available:
        return
    each = f", {workers} times {size_in_words(needs.memory_bytes(outputs))}" if workers > 1 else ""
    most = needs.most_outputs(available // workers)
    remedy = f"--chunk {most}" if most else "--workers 1" if workers > 1 else "a machine with more memory"
    raise ValuationError(
        f"valuing {outputs} outputs together needs {size_in_words(asked)} of memory beside the model{each}, but "
        f"{size_in_words(available)} are available; take {remedy}"
    )


def probe_valuing(index: AttributionIndex, model: Task, outputs: Sequence[Any], step: int, echo: int) -> ValuingCost:
    """Time the gradients of some outputs and the product with one shard; keep nothing.

    Args:
        index: the index.
        model: its model.
        outputs: outputs like those to value, at least one.
        step: outputs valued together.
        echo: see `AttributionIndex.value`.

    Raises:
        MismatchError: another model or tokenizer.
        InputError: an output has no token to predict.
    """
    needs, device = needs_of(index), device_of(model)
    of_outputs = of_step = 0.0
    batch = 0
    for _, part, own in index.parts(model):
        encoder = own.encoder(part.output_length(own))
        examples = HeldExamples([example for output in outputs for example in encoder.output(output, echo)])
        with part.tap(own) as tap:
            cost = probe_gradients(own, tap, examples, tokens_in_batch(None, device))
        of_outputs += cost.seconds * int(examples.sizes.sum()) / len(outputs)
        of_step += _product_seconds(part, device, step)
        batch = max(batch, cost.batch_bytes)
    return ValuingCost(replace(needs, batch_bytes=batch), of_outputs, of_step)


def _product_seconds(index: AttributionIndex, device: torch.device, step: int) -> float:
    """Return the seconds to read all rows and multiply them with the gradients of a step, from one shard."""
    widths = gradient_widths(index.manifest.layers, index.projections)

    def seconds(outputs: int) -> float:
        ready = {name: torch.ones(outputs, width, device=device) for name, width in widths.items()}
        return timed(lambda: influence(ready, next(index.shards(device)), 1.0), device)

    seconds(1)  # compares the file with its checksum, which is done once
    one, some = seconds(1), seconds(min(step, _TRIED))
    more = max(0.0, some - one) * (step / min(step, _TRIED))
    return (one + more) * len(index.manifest.shards)
