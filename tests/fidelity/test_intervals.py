from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from credit.fidelity.intervals import ShareBootstrap


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


def _alike(outputs: dict[str, dict[str, int]]) -> dict[str, list[str]]:
    bootstrap = ShareBootstrap(["provider"])
    bootstrap.add(_rows(outputs))
    return {key[0]: [other for (other,) in others] for key, others in bootstrap.alike().items()}


@pytest.mark.parametrize("others", [0.0, 0.5])
def test_equal_shares_are_told_apart_about_once_in_ten_times(others):
    """A 90 % interval of their difference misses the truth, which is zero, as often; whatever third parties get."""
    rng = np.random.default_rng(1)
    trials = 300
    kept = 0
    for trial in range(trials):
        parts = rng.dirichlet([0.6, 0.6, 0.6 * others + 1e-9], size=60)
        rows = (1e6 * parts).astype(int).tolist()
        kept += "b" in _alike({f"{trial}-{i}": dict(zip("abc", row, strict=True)) for i, row in enumerate(rows)})["a"]
    assert 0.85 <= kept / trials <= 0.95


def test_shares_are_told_apart_though_their_intervals_overlap_where_each_output_says_so():
    """Third parties move both shares together; within every output the first gets a quarter more."""
    rng = np.random.default_rng(2)
    outputs = {}
    for number in range(40):
        part = int(rng.integers(10_000, 400_000))
        outputs[f"o{number}"] = {"a": part * 5 // 4, "b": part, "c": 1_000_000 - part * 9 // 4}
    intervals = _intervals(_rows(outputs))
    assert intervals["a"][0] < intervals["b"][1], "the case must be one of overlap"
    assert "b" not in _alike(outputs)["a"]
    assert "a" not in _alike(outputs)["b"]


def test_few_outputs_and_equal_ones_tell_nobody_apart():
    assert _alike({f"o{i}": {"a": 3, "b": 1} for i in range(9)}) == {"a": ["b"], "b": ["a"]}
    assert _alike({f"o{i}": {"a": 3, "b": 1} for i in range(10)}) == {"a": [], "b": []}
    assert _alike({f"o{i}": {"a": 2, "b": 2, "c": 5} for i in range(20)}) == {"a": ["b"], "b": ["a"], "c": []}
    assert _alike({}) == {}


def test_a_book_of_many_outputs_is_drawn_as_many_small_ones_are():
    outputs = {f"o{i}": {"a": 1000 + i % 7, "b": 900 + i % 13} for i in range(2500)}
    names = list(outputs)
    parts = [_rows({name: outputs[name] for name in names[i : i + 100]}) for i in range(0, len(names), 100)]
    assert _intervals(_rows(outputs)) == _intervals(*parts)


def test_the_interval_covers_what_retraining_shows_where_shares_are_off_by_what_validation_found():
    """True shares differ from those of the valuation by a normal error, and outputs by themselves: both are covered."""
    rng = np.random.default_rng(4)
    error, trials = 0.15, 300
    covered, blind = 0, 0
    for trial in range(trials):
        valued = 0.3
        truth = valued + error * np.sqrt(valued * (1 - valued)) * rng.normal()
        parts = rng.beta(3, 7, size=80)
        book = _rows(
            {f"e{trial}-{i}": {f"a{trial}": int(p * 1e6), "b": int((1 - p) * 1e6)} for i, p in enumerate(parts)}
        )
        for spread in (0.0, error):
            bootstrap = ShareBootstrap(["provider"], spread)
            bootstrap.add(book)
            low, high = bootstrap.intervals()[f"a{trial}",]
            covered += spread > 0 and low <= truth <= high
            blind += spread == 0 and low <= truth <= high
    assert 0.85 <= covered / trials <= 0.95
    assert blind / trials < 0.5


def test_shares_that_differ_by_less_than_the_error_of_attribution_are_not_told_apart():
    outputs = {f"o{i}": {"a": 3, "b": 2, "c": 15} for i in range(20)}
    found = {}
    for error in (0.0, 0.1):
        bootstrap = ShareBootstrap(["provider"], error)
        bootstrap.add(_rows(outputs))
        found[error] = bootstrap.alike()
        low, high = bootstrap.intervals()["c",]
        assert 0 <= low <= 0.75 <= high <= 1
    assert found[0.0]["a",] == []
    assert found[0.1] == {("a",): [("b",)], ("b",): [("a",)], ("c",): []}
