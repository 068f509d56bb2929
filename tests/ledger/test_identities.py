"""One call is one output: whatever the order, the batches, the files and the loggers in which its records come."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from credit.ledger import admission, outputs, unvalued
from credit.ledger.admission import Added, Verdict
from credit.records import CallIdentity, LoggedOutput, SpanLink
from tests.ledger import samples
from tests.ledger.samples import MODEL, NOW, logged

A, D, T, H, C = Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.TOLD, Verdict.HOLDS, Verdict.CONFLICT

Told = tuple[LoggedOutput | None, SpanLink | None]
"""A record of a log: an output, a span, or both."""


def span(name: str, parent: str = "", text: str = "It lay still.", **ids: str) -> Told:
    """An answered call in a span."""
    identity = CallIdentity("t", name, parent, **ids)
    item = logged(1, source="otel", external_id=f"t:{name}", completion=text, identity=identity)
    return item, SpanLink("t", name, parent, is_call=True)


def no_call(name: str, parent: str = "") -> Told:
    return None, SpanLink("t", name, parent, is_call=False)


def call(logger: str, text: str = "It lay still.", **ids: str) -> Told:
    return logged(1, source=logger, external_id=f"{logger}-1", completion=text, identity=CallIdentity(**ids)), None


def read(conn: Connection, *records: Told) -> list[Added]:
    """Log one file; return the verdicts on its outputs, and each problem of its spans as a conflict."""
    file_id = admission.start_file(conn)
    problems = admission.add_spans(conn, [link for _, link in records if link], file_id)
    items = [item for item, _ in records if item]
    added = admission.add_outputs(conn, items, file_id, lines=range(1, len(items) + 1))
    accepted = [item.verdict for item in added].count(A)
    admission.record_file(
        conn, file_id, sha256="c" * 64, name="log", format="", accepted=accepted, duplicates=0, quarantined=0, now=NOW
    )
    return [*added, *(Added(C, problem) for problem in problems)]


def verdicts(conn: Connection, *records: Told) -> list[Verdict]:
    return [added.verdict for added in read(conn, *records)]


def texts(conn: Connection) -> list[str]:
    return sorted(item.output.completion for item in outputs.pending_outputs(conn, MODEL, 0, 10**6))


@pytest.fixture
def book(conn):
    samples.add_index(conn)
    return conn


@pytest.mark.parametrize("records", [[span("in", "out"), span("out")], [span("out"), span("in", "out")]], ids=str)
def test_a_call_told_by_two_spans_in_two_files_is_one_output_in_either_order(book, records):
    assert verdicts(book, records[0]) == [A]
    assert verdicts(book, records[1]) in ([T], [H])
    assert verdicts(book, *records) in ([D, T], [D, H], [T, D], [H, D])
    assert texts(book) == ["It lay still."]


@pytest.mark.parametrize("backwards", [False, True])
def test_in_one_file_the_innermost_span_is_the_call_in_either_order(book, backwards):
    records = [span("out", text="wrapped"), no_call("agent", "out"), span("a", "agent", "A"), span("b", "agent", "B")]
    assert set(verdicts(book, *(reversed(records) if backwards else records))) == {A, H}
    assert texts(book) == ["A", "B"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_a_span_that_is_no_call_ties_those_around_and_within_it_whichever_file_comes_first(book, order):
    records = [span("out"), no_call("agent", "out"), span("in", "agent")]
    for number in order:
        read(book, records[number])
    assert texts(book) == ["It lay still."]


@pytest.mark.parametrize("records", [[span("out"), span("in", "agent")], [span("in", "agent"), span("out")]], ids=str)
def test_outputs_that_a_later_span_ties_are_named_until_one_is_taken_out(book, records):
    for record in records:
        assert verdicts(book, record) == [A]
    (found,) = read(book, no_call("agent", "out"))
    assert found.problem == (
        "shows that 'otel:t:out' (log:1) and 'otel:t:in' (log:1) are one call, logged twice; take one out:"
        " credit outputs unvalue otel:t:in --reason ..."
    )


def test_a_call_within_a_span_that_was_logged_with_another_text_is_a_conflict_until_that_is_taken_out(book):
    read(book, span("out", text="wrapped"))
    (found,) = read(book, span("in", "out"))
    assert found.problem == (
        "a span around it is in the ledger with another text, as output 'otel:t:out' (log:1); to log the calls within"
        " that span instead: credit outputs unvalue otel:t:out --reason ..., then read this file again"
    )
    unvalued.unvalue(book, "otel:t:out", "it holds the call", now=NOW)
    assert verdicts(book, span("in", "out")) == [A]


@pytest.mark.parametrize("ids", [{"response": "chatcmpl-1"}, {"request": "req-1"}])
def test_two_loggers_of_one_call_are_one_output_where_an_id_says_so(book, ids):
    assert verdicts(book, call("litellm", **ids), call("otel", **ids)) == [A, T]
    assert verdicts(book, call("proxy", **ids), call("proxy", **ids)) == [T, T]
    (found,) = read(book, call("other", "It lay.", **ids))
    assert found.problem == "the call is in the ledger with another text, as output 'litellm:litellm-1' (log:1)"
    assert texts(book) == ["It lay still."]


def test_calls_of_one_request_with_responses_of_their_own_are_two(book):
    first, second = call("a", "A", request="r", response="1"), call("b", "B", request="r", response="2")
    assert verdicts(book, first, second) == [A, A]
    assert verdicts(book, call("c", "A", response="1")) == [T]


def test_ids_that_a_second_logger_adds_count_for_a_third(book):
    assert verdicts(book, call("litellm", response="chatcmpl-1")) == [A]
    assert verdicts(book, span("in", "out", response="chatcmpl-1")) == [T]
    assert verdicts(book, span("out")) == [H]
    assert verdicts(book, call("gateway", request="req-1", response="chatcmpl-1")) == [T]
    assert verdicts(book, call("audit", request="req-1")) == [T]


@pytest.mark.parametrize("apart", [False, True])
def test_ids_of_the_span_around_a_call_are_the_calls(book, apart):
    records = [span("in", "out"), span("out", response="chatcmpl-1")]
    for some in [[record] for record in records] if apart else [records]:
        read(book, *some)
    assert verdicts(book, call("litellm", response="chatcmpl-1")) == [T]


def test_a_record_that_shows_two_outputs_to_be_one_call_is_a_conflict(book):
    assert verdicts(book, call("litellm", response="chatcmpl-1"), span("in")) == [A, A]
    (found,) = read(book, call("third", response="chatcmpl-1", trace="t", span="in"))
    assert found.problem.startswith("shows that 'litellm:litellm-1' (log:1) and 'otel:t:in' (log:2) are one call")
    unvalued.unvalue(book, "otel:t:in", "logged twice", now=NOW)
    assert verdicts(book, call("third", response="chatcmpl-1", trace="t", span="in")) == [T]


def test_answers_of_one_call_are_outputs_of_their_own(book):
    def answer(logger: str, choice: int, text: str) -> Told:
        identity = CallIdentity(response="r", choice=choice)
        return logged(1, source=logger, external_id=f"1#{choice}", completion=text, identity=identity), None

    assert verdicts(book, answer("a", 0, "A"), answer("a", 1, "B")) == [A, A]
    assert verdicts(book, answer("b", 1, "B"), answer("b", 0, "A")) == [T, T]


def test_spans_that_are_their_own_ancestors_are_still_read(book):
    assert verdicts(book, span("a", "a")) == [A]
    assert sorted(map(str, verdicts(book, span("b", "c", "B"), span("c", "b", "C")))) == sorted(map(str, (A, H)))
    assert verdicts(book, span("d", "e", "D"), no_call("e", "d")) == [A]


trees = st.lists(st.tuples(st.integers(-1, 7), st.booleans()), min_size=1, max_size=8)
"""Parent and whether it is a call, by number; a parent that is not before it is none."""


@settings(max_examples=25)
@given(trees, st.data())
def test_any_split_of_a_trace_over_files_gives_the_outputs_of_one_file(module_ledger, tree, data):
    """The text of a call is that of the spans around it, as far as they hold it alone."""
    spans = [(parent if parent < number else -1, is_call) for number, (parent, is_call) in enumerate(tree)]
    records = _records(spans)
    order = data.draw(st.permutations(records * 2))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(order) - 1), max_size=3))) if len(order) > 1 else []
    parts = [order[low:high] for low, high in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    with samples.undone(module_ledger) as whole:
        samples.add_index(whole)
        read(whole, *records)
        expected = texts(whole)
    with samples.undone(module_ledger) as split:
        samples.add_index(split)
        found = [added for part in parts for added in read(split, *part)]
        logged_twice = [added.problem for added in found if "logged twice" in added.problem]
        assert set(texts(split)) == set(expected)
        # A span that comes after those that it ties shows what is double; nothing else is.
        assert len(texts(split)) == len(expected) or logged_twice


def _records(spans: Sequence[tuple[int, bool]]) -> list[Told]:
    """Spans of a trace in which each holds at most one other, so that all calls of a chain say the same."""
    held: set[int] = set()
    chains: list[int] = []
    records: list[Told] = []
    for number, (parent, is_call) in enumerate(spans):
        is_held = parent >= 0 and parent not in held
        held.add(parent)
        chains.append(chains[parent] if is_held else number)
        name, above = f"s{number}", f"s{parent}" if is_held else ""
        records.append(span(name, above, f"of {chains[number]}") if is_call else no_call(name, above))
    return records
