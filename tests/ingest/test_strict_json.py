from __future__ import annotations

import contextlib
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit.errors import InputError
from credit.ingest.strict_json import parse_json_object

scalars = st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"))
objects = st.dictionaries(st.text(st.characters(codec="utf-8")), scalars | st.lists(scalars))


@given(objects)
def test_json_objects_are_read_as_they_were_written(value):
    assert parse_json_object(json.dumps(value).encode()) == value


def test_fractions_stay_exact():
    assert parse_json_object(b'{"weight": 0.1}') == {"weight": Decimal("0.1")}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"id": "1"', "malformed JSON: Expecting ',' delimiter at character 11"),
        (b"", "malformed JSON"),
        (b'{"id": 1} {"id": 2}', "malformed JSON: Extra data"),
        (b'{"id": "a\tb"}', "malformed JSON: Invalid control character"),
        (b'{"id": "caf\xe9"}', "byte 0xe9 at position 12 is not UTF-8"),
        (b'{"weight": NaN}', "NaN is not a JSON number"),
        (b'{"weight": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"id": 1, "id": 2}', "the key 'id' stands there twice"),
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' stands there twice"),
        (b'{"weight": 1e99999999999999999999}', "exponent is out of all range"),
        (b'{"id": %s}' % (b"9" * 5000), "malformed JSON: Exceeds the limit"),
        (b"[" * 200_000, "nested too deeply"),
        (b'["id"]', "must be a JSON object in one line"),
        (b"null", "must be a JSON object in one line"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_the_reason(raw, message):
    with pytest.raises(InputError) as refusal:
        parse_json_object(raw)
    assert message in str(refusal.value)


@given(st.binary())
def test_any_bytes_are_an_object_or_an_input_error(raw):
    with contextlib.suppress(InputError):
        assert isinstance(parse_json_object(raw), dict)
