from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from credit.accounting.credits import MeasuredOutput, PeriodCredits, Policy, output_credits
from credit.fidelity.intervals import REPLICATES, ShareBootstrap, output_counts
from credit.records import Group


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


def _ranks(outputs: dict[str, dict[str, int]], among: str = "abc") -> dict[str, tuple[int, int]]:
    bootstrap = ShareBootstrap(["provider"])
    bootstrap.add(_rows(outputs))
    return {key: places for (key,), places in bootstrap.ranks({(name,) for name in among}).items()}


def test_a_rank_is_as_wide_as_the_shares_that_cannot_be_told_apart():
    equal = {f"o{i}": {"a": 2, "b": 2, "c": 5} for i in range(20)}
    assert _ranks(equal) == {"a": (2, 3), "b": (2, 3), "c": (1, 1)}
    assert _ranks(equal, "ab") == {"a": (1, 2), "b": (1, 2)}, "the others have no place"
    assert _ranks({f"o{i}": {"a": 3, "b": 2, "c": 1} for i in range(10)}) == {"a": (1, 1), "b": (2, 2), "c": (3, 3)}
    assert _ranks({f"o{i}": {"a": 3, "b": 2, "c": 1} for i in range(9)}) == dict.fromkeys("abc", (1, 3))
    assert _ranks({}) == {}
    assert _ranks({f"o{i}": {"house": 3} for i in range(20)}) == {}, "nobody who has a place earned anything"


def test_a_rank_holds_the_true_place_nine_times_in_ten():
    """True shares fall evenly; each trial draws outputs anew, and a place is right if it lies in its rank."""
    rng = np.random.default_rng(8)
    pulls, trials, held = np.array([1.6, 1.3, 1.0, 0.8]), 120, 0
    for trial in range(trials):
        parts = rng.dirichlet(pulls, size=60)
        rows = (1e6 * parts).astype(int).tolist()
        found = _ranks({f"{trial}-{i}": dict(zip("abcd", row, strict=True)) for i, row in enumerate(rows)}, "abcd")
        held += sum(low <= place <= high for place, (low, high) in enumerate((found[name] for name in "abcd"), start=1))
    assert held / (4 * trials) >= 0.9


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


PERIOD_POLICIES = [
    Policy("influence", basis="period"),
    Policy("influence", negative="net"),
    Policy("influence", basis="period", negative="net"),
]
each_period_policy = pytest.mark.parametrize(
    "policy", PERIOD_POLICIES, ids=lambda policy: f"{policy.basis}-{policy.negative}"
)


def _scored(measures: dict[str, dict[Group, float]], weights: dict[str, int]) -> pl.DataFrame:
    """The rows of a score book whose outputs have given measures."""
    rows = []
    for name, own in measures.items():
        credited = output_credits(weights[name], list(own), list(own.values()), tie_key=name)
        rows += [(name, group.provider, group.collection, own.get(group, 0.0), micro) for group, micro in credited]
    return pl.DataFrame(
        rows,
        schema=["name", "provider", "collection", "influence", "credit_micro"],
        orient="row",
        infer_schema_length=None,
    )


def _period_shares(
    policies: dict[str, Policy],
    measures: dict[str, dict[Group, float]],
    counts: dict[str, int],
    weights: dict[str, int],
) -> dict[str, float]:
    """What a period pays in which every output occurs as often as it is said, by what really pays."""
    period = PeriodCredits("2026-01")
    for name, own in measures.items():
        for number in range(counts[name]):
            item = MeasuredOutput(policies[name], f"{name} {number}", weights[name], list(own), list(own.values()))
            period.add(item)
    found: dict[str, float] = {}
    for group, micro in period.totals().items():
        found[group.provider] = found.get(group.provider, 0.0) + micro
    total = sum(found.values())
    return {key: micro / total for key, micro in found.items()} if total else {}


@each_period_policy
def test_by_sums_of_a_period_each_replicate_is_a_period_that_is_paid(policy):
    """Against the accounting itself, told every output as often as the replicate counts it; some pay alone."""
    rng = np.random.default_rng(5)
    groups = [Group("a", "one"), Group("a", "two"), Group("b"), Group("c")]
    names = [f"o{number}" for number in range(40)]
    measures = {
        name: dict(zip(groups, rng.normal([0.8, -0.1, 0.3, 0.02], 1.0).tolist(), strict=True)) for name in names
    }
    measures["o3"] = dict.fromkeys(groups, -1.0)  # which nobody earns
    weights = {name: int(rng.integers(0, 3_000_000)) for name in names}
    policies = {name: Policy("influence") if number % 5 == 0 else policy for number, name in enumerate(names)}
    bootstrap = ShareBootstrap(["provider"])
    for paid in (Policy("influence"), policy):
        own = {name: measures[name] for name in names if policies[name] == paid}
        bootstrap.add(_scored(own, weights), paid)
    drawn = {name: output_counts(name).astype(int) for name in names}
    replicates = [
        _period_shares(policies, measures, {name: int(drawn[name][number]) for name in names}, weights)
        for number in range(REPLICATES)
    ]
    keys = {key for shares in replicates for key in shares}
    expected = {
        (key,): tuple(np.quantile([shares.get(key, 0.0) for shares in replicates], [0.05, 0.95])) for key in keys
    }
    found = bootstrap.intervals()
    assert found.keys() == expected.keys()
    assert (("house",) in found) == (policy.basis == "output")
    for key, interval in expected.items():
        assert found[key] == pytest.approx(interval, abs=1e-5)


@each_period_policy
def test_by_sums_of_a_period_the_interval_covers_the_true_share_about_nine_times_in_ten(policy):
    """The truth is what a period of very many outputs of the kind pays."""
    groups = [Group("a"), Group("b"), Group("c")]

    def outputs(rng: np.random.Generator, count: int, name: str) -> dict[str, dict[Group, float]]:
        # A third output in a row is strong, for whoever it is.
        strength = rng.choice([1.0, 1.0, 6.0], size=(count, 1))
        drawn = strength * rng.normal([0.0, 0.3, -0.05], 0.8, size=(count, 3))
        drawn[:, :1] = strength * (0.3 + rng.exponential(0.4, size=(count, 1)))
        return {f"{name}-{n}": dict(zip(groups, row, strict=True)) for n, row in enumerate(drawn.tolist())}

    many = outputs(np.random.default_rng(6), 20_000, "many")
    truth = _period_shares(dict.fromkeys(many, policy), many, dict.fromkeys(many, 1), dict.fromkeys(many, 1_000_000))
    rng, trials = np.random.default_rng(7), 300
    covered = dict.fromkeys("ab", 0)
    for trial in range(trials):
        own = outputs(rng, 80, f"{policy.basis}{policy.negative}{trial}")
        bootstrap = ShareBootstrap(["provider"])
        bootstrap.add(_scored(own, dict.fromkeys(own, 1_000_000)), policy)
        intervals = bootstrap.intervals()
        for key in covered:
            low, high = intervals[key,]
            covered[key] += low <= truth[key] <= high
    for count in covered.values():
        assert 0.83 <= count / trials <= 0.95, covered


def test_a_share_that_the_sums_clip_to_nothing_has_an_interval_that_begins_there():
    groups = [Group("a"), Group("b")]
    rng = np.random.default_rng(8)
    own = {f"o{n}": {groups[0]: 1.0, groups[1]: float(rng.normal(-0.05, 1.0))} for n in range(60)}
    policy = Policy("influence", basis="period", negative="net")
    bootstrap = ShareBootstrap(["provider"])
    bootstrap.add(_scored(own, dict.fromkeys(own, 1_000_000)), policy)
    low, high = bootstrap.intervals()["b",]
    assert low == 0.0 < high
    assert sum(bootstrap.intervals()["a",]) + low + high == pytest.approx(2.0)
