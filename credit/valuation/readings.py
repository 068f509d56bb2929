"""Examples gathered by the window that they are read in, and whose the parts of a window's gradient are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from credit.valuation.gradients import Cut
from credit.valuation.task import AnyExample
from credit.valuation.tokens import Segment
from credit.valuation.transfer import upload


@dataclass(frozen=True, slots=True)
class Reading:
    """A window, and the places in a sequence of examples of those that are read in it."""

    window: AnyExample
    places: list[int]


def readings(examples: Sequence[AnyExample]) -> list[Reading]:
    """Gather segments by the very window that they were cut from; whatever is whole is read by itself.

    Windows come in the order of their first appearance. Ids do not matter: those of outputs need not be unique.
    """
    found: dict[int, Reading] = {}
    for place, example in enumerate(examples):
        if isinstance(example, Segment):
            found.setdefault(id(example.window), Reading(example.window, [])).places.append(place)
        else:
            found[-1 - place] = Reading(example, [place])
    return list(found.values())


def make_cut(batch: Sequence[Reading], examples: Sequence[AnyExample], device: torch.device) -> Cut | None:
    """Say whose every position of a batch of windows is; None where every window is one example.

    The examples of the batch are numbered in the order of its readings.
    """
    own = [[examples[place] for place in reading.places] for reading in batch]
    segments = [example for parts in own for example in parts if isinstance(example, Segment)]
    if not segments:
        return None
    length = segments[0].length
    width = max(reading.window.size for reading in batch)
    each = -(-width // length)
    number = 0
    cells: list[int] = []
    owner: list[int] = []
    for row, parts in enumerate(own):
        for example in parts:
            taken = _cells(example, length) if isinstance(example, Segment) else range(each)
            cells += [row * each + cell for cell in taken]
            owner += [number] * len(taken)
            number += 1
    every = owner == list(range(len(batch) * each)) == cells
    numbers = None if every else upload(torch.tensor(cells), device)
    return Cut(length, width, numbers, upload(torch.tensor(owner), device), number)


def _cells(segment: Segment, length: int) -> range:
    return range(segment.positions.start // length, (segment.positions.stop - 1) // length + 1)
