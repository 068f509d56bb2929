from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, select
from sqlalchemy.exc import DatabaseError

from credit.errors import LedgerError
from credit.ledger import admission, outputs, score_books
from credit.ledger.admission import Verdict
from credit.ledger.schema import call_identity, output
from credit.ledger.sql import among, load_rows
from credit.ledger.values import utc_text
from credit.records import LoggedOutput, Message
from credit.storage import canonical_json
from tests.ledger import samples
from tests.ledger.samples import MODEL, NOW, logged

A, D, C, U, X = Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.CONFLICT, Verdict.UNKNOWN_MODEL, Verdict.UNSTORABLE


def pending(conn: Connection, after: int = 0, limit: int = 100) -> list[outputs.StoredOutput]:
    return outputs.pending_outputs(conn, MODEL, after, limit)


def test_outputs_come_back_as_they_were_logged(conn):
    samples.add_index(conn)
    chat = (Message("system", "a\nb"), Message("user", '"ü" \N{PARTY POPPER}'))
    items = [logged(1), logged(2, prompt="", messages=chat), logged(3, source="", weight_micro=0)]
    items += [logged(4, prompt_ids=(1, 2), completion_ids=(3,)), logged(5, prompt="", prompt_ids=(4,), thoughts="t")]
    assert samples.add_outputs(conn, items) == [A] * 5
    assert [(item.id, item.output) for item in pending(conn)] == list(enumerate(items, start=1))


def test_verdicts_keep_the_order_of_the_records(conn):
    samples.add_index(conn)
    items = [
        logged(1),
        logged(1),
        logged(1, completion="other"),
        logged(2, model="nobody"),
        logged(2),
        logged(3, prompt="a\x00b"),
        logged(3, completion="\ud800"),
        logged(3, weight_micro=-1),
        logged(3, weight_micro=2**63),
        logged(3, weight_micro=2**63 - 1),
        logged(1, source="other log"),
    ]
    assert samples.add_outputs(conn, items) == [A, D, C, U, A, X, X, X, X, A, A]


def test_a_file_given_twice_adds_nothing(conn):
    samples.add_index(conn)
    items = [logged(number) for number in range(1200)]
    assert set(samples.add_outputs(conn, items)) == {A}
    assert set(samples.add_outputs(conn, list(reversed(items)))) == {D}
    assert outputs.pending_count(conn) == 1200


@pytest.mark.parametrize(
    "change",
    [
        {"completion": "x"},
        {"prompt": "x"},
        {"prompt": "", "messages": (Message("user", "prompt 1"),)},
        {"prompt_ids": (1,)},
        {"completion_ids": (1,)},
        {"weight_micro": 1},
        {"occurred_at": datetime(2026, 9, 2, 8, 0, 0, 1, tzinfo=UTC)},
        {"model": "x"},
        {"external_id": "x"},
        {"source": "x"},
        {"user": "0a1b2c3d-1"},
        {"text": "0a1b2c3d-1"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_counts_for_the_content(change):
    assert outputs.content_sha256(logged(1, **change)) != outputs.content_sha256(logged(1))


USER, OTHER, TEXT = (f"0a1b2c3d-{digit * 32}" for digit in "123")


def test_pseudonyms_come_back_as_they_were_logged(conn):
    samples.add_index(conn)
    assert samples.add_outputs(conn, [logged(1, user=USER, text=TEXT), logged(2)]) == [A, A]
    assert [(item.output.user, item.output.text) for item in pending(conn)] == [(USER, TEXT), ("", "")]
    assert outputs.last_pseudonym(conn) == ""
    samples.add_outputs(conn, [logged(3, text=TEXT)])
    assert outputs.last_pseudonym(conn) == TEXT


@pytest.mark.parametrize(
    ("before", "again", "verdict"),
    [
        ({}, {"user": USER, "text": TEXT}, D),
        ({"user": USER, "text": TEXT}, {}, D),
        ({"text": TEXT}, {"user": USER, "text": TEXT}, D),
        ({"user": USER, "text": TEXT}, {"user": USER, "text": OTHER}, D),
        ({"user": USER, "text": TEXT}, {"user": OTHER, "text": TEXT}, C),
        ({"user": USER, "text": TEXT}, {"user": USER, "text": TEXT, "completion": "x"}, C),
    ],
)
def test_only_two_users_of_one_call_contradict_each_other(conn, before, again, verdict):
    """A file that was logged before pseudonyms, or by a logger without users, is known when it comes again."""
    samples.add_index(conn)
    assert samples.add_outputs(conn, [logged(1, **before)]) == [A]
    assert samples.add_outputs(conn, [logged(1, **again)]) == [verdict]


def test_text_moved_from_one_field_to_the_next_is_another_content():
    left, right = logged(1, prompt="ab", completion="c"), logged(1, prompt="a", completion="bc")
    assert outputs.content_sha256(left) != outputs.content_sha256(right)


TEXTS = st.text(st.characters(exclude_categories=()), max_size=6)
IDS = st.lists(st.integers(0), max_size=2).map(tuple)


@given(
    st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS),
    st.lists(st.builds(Message, TEXTS, TEXTS, TEXTS), max_size=3),
    st.integers(),
    st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS),
    st.tuples(IDS, IDS),
)
def test_the_content_is_hashed_as_the_general_encoder_would_write_it(said, messages, weight, more, ids):
    source, name, model, completion, prompt = said
    thoughts, template, user, text, salt = more
    item = LoggedOutput(
        source, name, NOW, model, completion, prompt, tuple(messages), weight, thoughts, template,
        user=user, text=text, salt=salt, prompt_ids=ids[0], completion_ids=ids[1],
    )  # fmt: skip
    turns = [(turn.role, turn.content, *([turn.extra] if turn.extra else [])) for turn in messages]
    told = (("thoughts", thoughts), ("template", template), ("prompt_ids", ids[0]), ("completion_ids", ids[1]))
    beside = {name: value for name, value in told if value}
    context = {"messages": turns, **beside} if beside else turns
    keyed = [[kind, value] for kind, value in (("user", user), ("text", text), ("salt", salt)) if value]
    fields = ("credit.output.1", source, name, utc_text(NOW), model, prompt, context, completion, weight, *keyed)
    assert outputs.context_json(item) == canonical_json(context)
    assert outputs.content_sha256(item) == hashlib.sha256(canonical_json(fields).encode()).hexdigest()


def test_the_same_moment_in_another_time_zone_is_the_same_content():
    there = logged(1).occurred_at.astimezone(timezone(timedelta(hours=9)))
    assert outputs.content_sha256(logged(1, occurred_at=there)) == outputs.content_sha256(logged(1))


def test_a_moment_without_a_time_zone_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        outputs.content_sha256(logged(1, occurred_at=NOW.replace(tzinfo=None)))


def test_rows_of_a_batch_are_under_the_rules_of_the_database(conn):
    samples.add_index(conn)
    columns = ("id", "kind", "scope", "value", "choice", "output_id", "ingest_file_id")
    samples.add_outputs(conn, [logged(1)])
    load_rows(conn, call_identity, columns, [(1, "response", "", 'a\tb\\N\n"ü"', 0, 1, 1)])
    assert conn.execute(select(call_identity.c.value)).scalar() == 'a\tb\\N\n"ü"'
    with pytest.raises(DatabaseError, match=r"exists already|duplicate key"):
        load_rows(conn, call_identity, columns, [(1, "response", "", "b", 0, 1, 1)])


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_rows_are_found_by_any_number_of_keys(conn, count):
    samples.add_index(conn)
    samples.add_outputs(conn, [logged(1), logged(2)])
    keys = [("log", f"out-{number}") for number in range(count)]
    query = among(conn, select(output.c.external_id), (output.c.source, output.c.external_id), keys)
    assert set(conn.execute(query).scalars()) == {name for _, name in keys} & {"out-1", "out-2"}


def test_outputs_without_their_file_cannot_be_committed(ledger):
    with ledger.write() as conn:
        samples.add_index(conn)

    def forget() -> None:
        with ledger.write() as conn:
            admission.add_outputs(conn, [logged(1)], admission.start_file(conn))

    with pytest.raises(LedgerError, match=r"FOREIGN KEY|foreign key"):
        forget()


def test_an_output_is_found_by_what_reports_call_it_its_own_format_first(conn):
    samples.add_index(conn)
    ids = [("log", "a"), ("own", "log:a"), ("own", "b"), ("log", "c:d")]
    samples.add_outputs(conn, [logged(n, source=source, external_id=name) for n, (source, name) in enumerate(ids)])
    named = {name: outputs.output_called(conn, name) for name in ("log:a", "b", "log:c:d", "a", "log:b", "own:b")}
    found = {name: item and item.id for name, item in named.items()}
    assert found == {"log:a": 2, "b": 3, "log:c:d": 4, "a": None, "log:b": None, "own:b": 3}
    assert outputs.output_names(conn, MODEL) == {1: "log:a", 2: "log:a", 3: "b", 4: "log:c:d"}


def test_paging_meets_every_pending_output_once(conn):
    index = samples.add_index(conn)
    samples.add_outputs(conn, [logged(number) for number in range(10)])
    samples.value(conn, index.id, [2, 5])
    seen: list[int] = []
    while page := pending(conn, seen[-1] if seen else 0, 3):
        seen += [item.id for item in page]
    assert seen == [1, 3, 4, 6, 7, 8, 9, 10]


def test_outputs_of_another_model_are_not_pending_for_this_one(conn):
    samples.add_index(conn)
    samples.add_index(conn, "other", "e" * 64)
    samples.add_outputs(conn, [logged(1), logged(2, model="other")])
    assert [item.output.model for item in pending(conn)] == [MODEL]


def test_pending_counts_up_to_the_end_of_a_month_or_within_it(conn):
    index = samples.add_index(conn)
    moments = [datetime(2026, 9, 30, 23, 59, 59, 999999, UTC), datetime(2026, 10, 1, tzinfo=UTC)]
    moments.append(datetime(2026, 12, 31, 23, 0, tzinfo=timezone(timedelta(hours=-2))))
    samples.add_outputs(conn, [logged(n, occurred_at=moment) for n, moment in enumerate(moments)])
    months = ("2026-08", "2026-09", "2026-10", "2026-12", "2027-01")
    assert [outputs.pending_count(conn, through=month) for month in months] == [0, 1, 2, 2, 3]
    assert [outputs.pending_count(conn, since=month, through=month) for month in months] == [0, 1, 1, 0, 1]
    assert [outputs.has_outputs(conn, month) for month in months] == [False, True, True, False, True]
    samples.value(conn, index.id, [1])
    assert [outputs.pending_count(conn, through=month) for month in months] == [0, 0, 1, 1, 2]


def test_an_output_is_valued_once_per_index(conn):
    first, second = samples.add_index(conn), samples.add_index(conn, fingerprint="e" * 64)
    samples.add_outputs(conn, [logged(1), logged(2)])
    samples.value(conn, first.id, [1])
    samples.value(conn, second.id, [1], sha256="a" * 64)
    with pytest.raises(LedgerError, match="output 1 has been valued"):
        samples.value(conn, first.id, [2, 1], sha256="b" * 64)


def test_a_book_is_registered_once(conn):
    index = samples.add_index(conn)
    samples.add_outputs(conn, [logged(1), logged(2)])
    samples.value(conn, index.id, [1])
    with pytest.raises(LedgerError, match="registered already"):
        samples.value(conn, index.id, [2])


def test_a_book_needs_its_run(conn):
    with pytest.raises(LedgerError, match="no compute run 7"):
        score_books.register_book(
            conn, sha256="a" * 64, compute_run_id=7, output_ids=[], row_count=0, byte_count=0, now=NOW
        )


def test_a_run_is_its_fingerprint(conn):
    index = samples.add_index(conn)

    def run(policy: str) -> int:
        return score_books.ensure_run(conn, "run", index_id=index.id, policy_json=policy, software_version="1", now=NOW)

    assert run("{}") == run("{}")
    with pytest.raises(LedgerError, match="another index or policy"):
        run('{"basis":"period"}')


def test_a_default_record_is_storable(conn):
    samples.add_index(conn)
    assert samples.add_outputs(conn, [LoggedOutput("s", "1", NOW, MODEL, "c")]) == [A]
