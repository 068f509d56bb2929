from __future__ import annotations

import hashlib
import hmac
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from credit.errors import InputError
from credit.ingest.files import Parsed
from credit.ingest.outputs import OutputReader
from credit.ingest.pseudonyms import PseudonymKey, key_id, own_key, read_key
from credit.records import LoggedOutput, Message
from credit.storage import canonical_json

KEY = PseudonymKey(bytes(range(32)))
MOMENT = datetime(2026, 10, 5, tzinfo=UTC)
SAID = LoggedOutput("own", "a", MOMENT, "m", "An  answer.\n", "A question")


def text_of(output: LoggedOutput, key: PseudonymKey = KEY) -> str:
    return key.text(output.model, output.prompt, output.messages, output.completion)


def test_a_pseudonym_is_a_keyed_hash_with_the_id_of_its_key():
    said = hmac.new(bytes(range(32)), b'["credit.user.1","ada@example.org"]', hashlib.sha256).hexdigest()
    assert KEY.user("ada@example.org") == f"{KEY.id}-{said[:32]}"
    assert key_id(KEY.user("ada@example.org")) == KEY.id
    assert KEY.user("") == ""


@pytest.mark.parametrize("text", ['a "b"\n ü \ud800', ""], ids=["any", "none"])
def test_what_is_hashed_is_what_the_general_encoder_would_write(text):
    def hashed(*parts: object) -> str:
        said = hmac.new(bytes(range(32)), canonical_json(parts).encode(), hashlib.sha256).hexdigest()
        return f"{KEY.id}-{said[:32]}"

    plain = " ".join(text.split())
    chat = (Message(text, text), Message("b", text))
    turns = [(text, plain), ("b", plain)]
    assert KEY.text(text, text, chat, text) == hashed("credit.text.1", text, plain, turns, plain)
    assert KEY.salt(text, text) == hashed("credit.salt.1", text, text)
    assert KEY.output(text) == hashed("credit.output.1", text)


def test_another_key_gives_another_pseudonym():
    other = PseudonymKey(bytes(32))
    assert other.id != KEY.id
    assert other.user("ada") != KEY.user("ada")
    assert text_of(SAID, other) != text_of(SAID)


def test_the_same_call_logged_again_has_the_same_text_whatever_its_id_time_and_blanks():
    again = LoggedOutput("other", "b", datetime(2026, 10, 6, tzinfo=UTC), "m", " An answer.", "A\tquestion", user="x")
    assert text_of(again) == text_of(SAID)


@pytest.mark.parametrize(
    "other",
    [
        LoggedOutput("own", "a", MOMENT, "n", "An answer.", "A question"),
        LoggedOutput("own", "a", MOMENT, "m", "an answer.", "A question"),
        LoggedOutput("own", "a", MOMENT, "m", "An answer.", "Another question"),
        LoggedOutput("own", "a", MOMENT, "m", "An answer.", messages=(Message("user", "A question"),)),
        LoggedOutput("own", "a", MOMENT, "m", "question An answer.", "A"),
    ],
    ids=["model", "case", "prompt", "chat", "border"],
)
def test_another_call_has_another_text(other):
    assert text_of(other) != text_of(SAID)


def test_a_key_is_drawn_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "data" / "pseudonyms.key"
    key = own_key(path)
    assert own_key(path).id == read_key(path).id == key.id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert own_key(tmp_path / "other" / "pseudonyms.key").id != key.id


@pytest.mark.parametrize("content", ["", "00", "no hexadecimal", "00" * 33])
def test_a_file_that_is_no_key_is_refused(tmp_path, content):
    path = tmp_path / "pseudonyms.key"
    path.write_text(content)
    with pytest.raises(InputError, match="key of pseudonyms"):
        read_key(path)


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(InputError, match=r"other\.key"):
        read_key(tmp_path / "other.key")


OPENAI = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1761955140,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}}],
}
ASKED = [{"role": "user", "content": "Q"}]
OWN = {"id": "o1", "occurred_at": "2025-10-31T23:59:00Z", "model": "m", "prompt": "Q", "completion": "A"}
OBSERVATION = {
    "id": "s1",
    "traceId": "t1",
    "type": "GENERATION",
    "startTime": "2025-10-31T23:59:00Z",
    "model": "m",
    "input": "Q",
    "output": "A",
}
NANOS = "1761955140000000000"
SPAN = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174",
    "startTimeUnixNano": NANOS,
    "attributes": [
        {"key": name, "value": {"stringValue": value}}
        for name, value in {
            "gen_ai.operation.name": "chat",
            "gen_ai.response.model": "m",
            "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Q"}]}]),
            "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "A"}]}]),
            "user.id": "ada",
        }.items()
    ],
}
MLFLOW_SPAN = {
    "span_id": "s1",
    "start_time_unix_nano": int(NANOS),
    "attributes": {
        "mlflow.spanType": '"CHAT_MODEL"',
        "mlflow.llm.model": '"m"',
        "mlflow.spanInputs": '"Q"',
        "mlflow.spanOutputs": '"A"',
    },
}
LITELLM = {"id": "c1", "call_type": "acompletion", "startTime": 1761955140.5, "model": "m", "messages": ASKED}


@pytest.mark.parametrize(
    "record",
    [
        OWN | {"user": "ada"},
        {"request": {"messages": ASKED, "user": "ada"}, "response": OPENAI},
        {"request": {"messages": ASKED, "safety_identifier": "ada", "user": "old"}, "response": OPENAI},
        LITELLM | {"end_user": "ada", "response": {"choices": OPENAI["choices"]}},
        OBSERVATION | {"userId": "ada"},
        {"id": "t1", "userId": "ada", "observations": [OBSERVATION]},
        {"data": [{"id": "t1", "userId": "ada", "observations": [OBSERVATION]}], "meta": {"page": 1}},
        {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN]}]}]},
        {
            "info": {"trace_id": "tr-1", "trace_metadata": {"mlflow.trace.user": "ada"}},
            "data": {"spans": [MLFLOW_SPAN]},
        },
    ],
    ids=["own", "openai-user", "openai-safety", "litellm", "langfuse", "trace", "page", "otel", "mlflow"],
)
def test_the_user_of_every_format_is_known_by_a_pseudonym(tmp_path, record):
    (found,) = read(tmp_path, record, key=KEY)
    assert found.user == KEY.user("ada")
    assert found.text == text_of(found)
    (unkeyed,) = read(tmp_path, record)
    assert (unkeyed.user, unkeyed.text) == ("", "")


@pytest.mark.parametrize("user", [None, "", " ", ["ada"], True, {"id": "ada"}], ids=repr)
def test_an_openai_user_that_is_no_id_is_no_user(tmp_path, user):
    (found,) = read(tmp_path, {"request": {"messages": ASKED, "user": user}, "response": OPENAI}, key=KEY)
    assert found.user == ""


def read(tmp_path: Path, record: dict[str, Any], **options: Any) -> list[LoggedOutput]:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(record) + "\n")
    found = list(OutputReader(path, **options))
    assert all(isinstance(item, Parsed) for item in found), found
    return [item.record for item in found if isinstance(item, Parsed)]
