"""Baselines that need no model, against values by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from credit.fidelity.measures import word_overlap
from credit.records import PPM, Group, LoggedOutput, Share, TrainingRecord


def record(name: str, text: str, **shares: int) -> TrainingRecord:
    return TrainingRecord(name, None, text, splits=tuple(Share(Group(key), ppm) for key, ppm in shares.items()))


def output(text: str) -> LoggedOutput:
    return LoggedOutput("own", text, datetime(2026, 1, 1, tzinfo=UTC), "m", text)


RECORDS = [
    record("a", "The harbour, the HARBOUR lay still", ann=PPM),
    record("b", "the hills", ben=PPM),
    record("c", "the rain", ben=PPM),
    record("d", "the sea lay", ann=PPM // 4, ben=PPM * 3 // 4),
]


def test_word_overlap_sums_rare_shared_words_beyond_the_noise():
    found = word_overlap(
        RECORDS, [output("the harbour lay"), output("The sea!"), output("the"), output("")], ["ann", "ben"]
    )
    of_each = np.array([np.log(4) + np.log(2), 0.0, 0.0, np.log(2)])
    first = of_each[0] - of_each.mean() - of_each.std()
    of_sea = np.array([0.0, 0.0, 0.0, np.log(4)])
    second = of_sea[3] - of_sea.mean() - of_sea.std()
    assert found == pytest.approx(np.array([[first, 0], [second / 4, second * 3 / 4], [0, 0], [0, 0]]))
