from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from credit.reporting.intervals import ShareBootstrap


def _rows(outputs: dict[str, dict[str, int]]) -> pl.DataFrame:
    cells = [(name, key, micro) for name, parts in outputs.items() for key, micro in parts.items()]
    return pl.DataFrame(cells, schema=["name", "provider", "credit_micro"], orient="row")


def _intervals(*books: pl.DataFrame) -> dict[str, tuple[float, float]]:
    bootstrap = ShareBootstrap(["provider"])
    for book in books:
        bootstrap.add(book)
    return {key[0]: interval for key, interval in bootstrap.intervals().items()}


def test_the_interval_covers_the_true_share_about_nine_times_in_ten():
    rng = np.random.default_rng(0)
    truth, trials = 0.3, 300
    covered = 0
    for trial in range(trials):
        parts = rng.beta(3, 7, size=80)
        book = _rows({f"{trial}-{i}": {"a": int(p * 1e6), "b": int((1 - p) * 1e6)} for i, p in enumerate(parts)})
        low, high = _intervals(book)["a"]
        covered += low <= truth <= high
    assert 0.84 <= covered / trials <= 0.95


def test_how_outputs_are_spread_over_books_changes_nothing():
    outputs = {f"o{i}": {"a": 1000 + 37 * i, "b": 5000 - 11 * i} for i in range(30)}
    halves = [dict(list(outputs.items())[:13]), dict(list(outputs.items())[13:])]
    together, apart = _intervals(_rows(outputs)), _intervals(*map(_rows, halves))
    for key in together:
        assert together[key] == pytest.approx(apart[key], rel=1e-12)


def test_equal_outputs_leave_no_doubt_and_no_credit_no_interval():
    assert _intervals(_rows({f"o{i}": {"a": 3, "b": 1} for i in range(20)}))["a"] == pytest.approx((0.75, 0.75))
    assert _intervals(_rows({"o": {"a": 1, "nobody": 0}})) == {"a": (1.0, 1.0)}
    assert _intervals() == {}
