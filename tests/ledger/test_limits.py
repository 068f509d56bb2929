"""Limits on one user's outputs: never more than them, whatever the order of outputs, chunks and closes."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from credit.ledger.limits import Limits, UserOutput, limit_outputs

ANY = Limits()
outputs_of_days = st.lists(
    st.builds(
        UserOutput,
        id=st.just(0),
        source=st.just("own"),
        external_id=st.just(""),
        occurred_at=st.sampled_from([f"2026-10-0{day}T0{hour}:00:00.000000Z" for day in (1, 2) for hour in (1, 2, 3)]),
        user=st.sampled_from(["", "ada", "bob"]),
        text=st.sampled_from(["", "t1", "t2"]),
        weight_micro=st.integers(1, 50),
        period=st.sampled_from(["2026-10", "2026-11"]),
        limits=st.just(ANY),
    ),
    max_size=14,
)
some_limits = st.builds(Limits, st.integers(0, 3), st.sampled_from([0, 1, 40, 90]))


def numbered(items, limits):
    return [replace(item, id=n, external_id=f"o{n:02d}", limits=limits) for n, item in enumerate(items)]


def counted(items):
    lost = {item.output.id: item.counted_micro for item in limit_outputs(items)}
    return {item.id: lost.get(item.id, item.weight_micro) for item in items}


@given(outputs_of_days, some_limits)
def test_no_user_and_day_counts_for_more_than_the_limit(items, limits):
    found = counted(items := numbered(items, limits))
    assert all(0 <= found[item.id] <= item.weight_micro for item in items)
    for day in {item.day for item in items}:
        for user in ("ada", "bob"):
            own = [item for item in items if (item.day, item.user) == (day, user)]
            if limits.user_cap_micro:
                assert sum(found[item.id] for item in own) <= limits.user_cap_micro
        for user, text in {(item.user, item.text) for item in items if item.text}:
            same = [item for item in items if (item.day, item.user, item.text) == (day, user, text)]
            if limits.repeats:
                assert sum(found[item.id] > 0 for item in same) <= limits.repeats


@given(outputs_of_days, some_limits, st.randoms())
def test_the_order_of_outputs_does_not_matter(items, limits, random):
    found = counted(items := numbered(items, limits))
    random.shuffle(items)
    assert counted(items) == found


@given(outputs_of_days, some_limits)
def test_what_a_close_has_counted_stays_as_it_was_when_more_outputs_come(items, limits):
    items = numbered(items, limits)
    first = [item for item in items if item.period == "2026-10"]
    after = counted(items)
    assert counted(first) == {item.id: after[item.id] for item in first}


@given(outputs_of_days, some_limits)
def test_a_user_within_the_limits_loses_nothing_and_one_beyond_loses_less_than_a_unit_an_output(items, limits):
    found = counted(items := numbered(items, limits))
    for (day, user), group in groupby(sorted(items, key=lambda i: (i.day, i.user)), lambda i: (i.day, i.user)):
        own = list(group)
        repeated = counted([replace(item, limits=Limits(limits.repeats)) for item in own])
        cap = limits.user_cap_micro if user else 0
        if not cap or sum(repeated.values()) <= cap:
            assert {item.id: found[item.id] for item in own} == repeated, (day, user)
        else:
            assert sum(found[item.id] for item in own) > cap - len(own) - 1


def test_without_limits_everything_counts():
    same = UserOutput(1, "own", "a", "2026-10-01T01:00:00.000000Z", "ada", "t", 10**9, "2026-10", ANY)
    assert list(limit_outputs([same, replace(same, id=2, external_id="b")])) == []


def test_the_first_answer_counts_and_the_later_ones_are_repeats():
    early, late = "2026-10-01T01:00:00.000000Z", "2026-10-01T02:00:00.000000Z"
    first = UserOutput(7, "own", "z", early, "ada", "t", 5, "2026-10", Limits(repeats=1))
    second = replace(first, id=1, external_id="a", occurred_at=late)
    other = replace(first, id=2, external_id="b", user="bob")
    (found,) = limit_outputs([second, other, first])
    assert (found.output, found.counted_micro, found.is_repeat, found.lost_micro) == (second, 0, True, 5)
