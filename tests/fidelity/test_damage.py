"""Tricks of a provider who wants more than its share, played on the laboratory's quick case and paid by default."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fidelity.cases import CASES
from benchmarks.fidelity.gaming import CONTROL, TRICKS, doubted, play

PAID = "influence + support over 1 σ"
NOISE = 0.02
"""What another seed of an honest model would change."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models are kept."""
    return tmp_path_factory.mktemp("gaming")


@pytest.fixture(scope="module")
def paid(work: Path) -> dict[str, float]:
    """Share of all credits that the provider gets by each trick; honest, it is 0.128."""
    make, size = CASES["quick"]
    tricks = [trick for trick in TRICKS if trick not in {"data ten times, unnoticed", "a rival's data copied"}]
    played = play(make(work, size), work, tricks, seeds=1, weightings=["none"])
    return {trick: share for trick, _, measure, (share,) in played if measure == PAID}


def test_data_ten_times_gains_nothing_once_repeats_are_left_out(paid):
    assert paid["data ten times, noticed"] <= 1.05 * paid["honest"]


@pytest.mark.parametrize("trick", ["padded with noise", "two accounts", "keywords", "outliers"])
def test_padding_splitting_and_surprises_gain_nothing(paid, trick):
    assert paid[trick] <= paid["honest"] + NOISE


@pytest.mark.parametrize("trick", ["padded with common text, noticed", "a rival's data copied, noticed"])
def test_others_text_gains_nothing_without_what_credit_overlap_names(paid, trick):
    assert paid[trick] <= paid["honest"] + NOISE


def test_common_text_that_nobody_looks_for_pays(paid):
    """What the README warns of; were it not so, the tests above would show nothing."""
    assert paid["padded with common text"] > paid["honest"] + 2 * NOISE


def test_one_whose_text_was_never_trained_on_is_named_by_credit_membership_and_nobody_else(work):
    make, size = CASES["quick"]
    assert doubted(make(work, size), work) == {CONTROL}
