"""A store gives back the examples that it was given, from memory or from a disk, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from credit.errors import InputError, ValuationError
from credit.records import PPM, Group, Share, TrainingRecord
from credit.valuation import example_store
from credit.valuation.batches import by_window
from credit.valuation.example_store import HeldExamples, StoredExamples
from credit.valuation.examples import Member, StoredMembers, encode_training, hash_of
from credit.valuation.rows import ExampleColumns, fold_key, lay_out_rows
from credit.valuation.tokens import Segment, Window, cut_window
from tests.commands import full_disk

GROUPS = (Group("ann", "books"), Group("ben"), Group("cleo"))
SHARES = st.sampled_from([(Share(GROUPS[0]),), (Share(GROUPS[1]),), (Share(GROUPS[0], 1), Share(GROUPS[2], PPM - 1))])


@st.composite
def texts(draw: st.DrawFn) -> list[tuple[list[Window | Segment], tuple[Share, ...]]]:
    found = []
    for number in range(draw(st.integers(1, 8))):
        size = draw(st.integers(2, 30))
        window = Window(f"é{number}", np.arange(size, dtype=np.int32) * 70_000, draw(st.integers(1, size - 1)))
        found.append((list(cut_window(window, 7)), draw(SHARES)))
    return found


def _stored(given_texts: Sequence[tuple[Sequence[Window | Segment], tuple[Share, ...]]]) -> StoredExamples:
    store = StoredExamples()
    for examples, shares in given_texts:
        for example in examples:
            store.add(example, shares, example.digest())
    return store


@given(texts(), st.booleans(), st.data())
def test_examples_come_back_as_they_were(given_texts, on_disk, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example_store, "_IN_MEMORY", 1 if on_disk else 2**20)
        store = _stored(given_texts)
        examples = [example for own, _ in given_texts for example in own]
        held = HeldExamples(examples)
        chosen = data.draw(st.lists(st.integers(0, len(examples) - 1), max_size=20))
        taken = store.take(chosen)
        assert [e.digest() for e in taken] == [examples[at].digest() for at in chosen]
        assert [store.id_of(at) for at in chosen] == [examples[at].id for at in chosen]
        assert [store.digest_of(at) for at in chosen] == [examples[at].digest()[:8].hex() for at in chosen]
        windows = {window.window.id for window in by_window(taken)}
        assert len(by_window(taken)) - sum(isinstance(e, Window) for e in taken) <= len(windows)
        assert len(store) == len(held)
        for name in ("sizes", "window_sizes", "window_counts"):
            assert getattr(store, name).tolist() == getattr(held, name).tolist(), name
        assert store.predicted.tolist() == [example.predicted for example in examples]
        assert store.window_keys("x").tolist() == held.window_keys("x").tolist()
        some = data.draw(st.lists(st.integers(0, len(given_texts) - 1), max_size=5))
        assert [e.id for e in store.of_windows(some)] == [e.id for e in held.of_windows(some)]


@given(texts(), st.sampled_from([None, 2, 5]), st.data())
def test_rows_of_stored_examples_are_those_of_a_loop(given_texts, rows_per_group, data):
    """The reference: groups by name, folds by hash or one row each by window, and sums in integers."""
    members = StoredMembers(_stored(given_texts))
    listed = list(members)
    excluded = data.draw(st.sets(st.sampled_from([member.id for member in listed]), max_size=3))
    try:
        layout = lay_out_rows(members.columns, rows_per_group, excluded)
    except ValuationError:  # a fold would hold all of a group
        return
    assert layout.groups == lay_out_rows(_columns(listed), rows_per_group, excluded).groups
    expected: list[list[tuple[str, int]]] = []
    for group in sorted({share.group for member in listed for share in member.shares}):
        own = [(member.id, share.ppm) for member in listed for share in member.shares if share.group == group]
        folds: dict[object, list[tuple[str, int]]] = {}
        folded = rows_per_group is not None and len(own) > rows_per_group
        for name, ppm in own:
            key = fold_key(name) % rows_per_group if folded else (fold_key(name.partition("[")[0]), name)
            if name not in excluded:
                folds.setdefault(key, []).append((name, ppm))
        expected += [folds[key] for key in sorted(folds)]
    found: list[list[tuple[str, int]]] = [[] for _ in expected]
    for number, member in enumerate(listed):
        for row, share in zip(layout.rows_of(number), member.shares, strict=True):
            if row >= 0:
                found[row].append((member.id, share.ppm))
    assert found == expected
    assert layout.counts.examples.tolist() == [len(row) for row in expected]
    assert layout.counts.mass.tolist() == [sum(ppm for _, ppm in row) / PPM for row in expected]
    assert layout.counts.squares.tolist() == [sum(ppm * ppm for _, ppm in row) / PPM**2 for row in expected]


def _columns(members: Sequence[Member]) -> ExampleColumns:
    return ExampleColumns.of([m.id for m in members], [m.shares for m in members], [m.tokens for m in members])


def test_the_hash_of_stored_data_is_that_of_its_members_in_any_order(model, data):
    encoder = model.encoder(64)
    found = encode_training(data, encoder, 8)
    assert isinstance(found.members, StoredMembers)
    assert int(found.sha256, 16) == hash_of(found.members) == hash_of(list(found.members)[::-1])
    assert encode_training(data[::-1], encoder, 8).sha256 == found.sha256


def test_two_examples_of_one_id_are_refused_wherever_they_stand(model, data):
    twice: list[TrainingRecord] = [*data, replace(data[0], completion="another text")]
    with pytest.raises(InputError, match=f"two training examples have the id '{data[0].id}'"):
        encode_training(twice, model.encoder(64), 256)


def test_a_full_disk_is_named(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(example_store, "_IN_MEMORY", 1)
    many = [replace(record, id=f"{record.id}-{copy}") for copy in range(200) for record in data]
    with full_disk(), pytest.raises(ValuationError, match=r"tokens of the data cannot be kept in .*large"):
        encode_training(many, model.encoder(64), 256, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
