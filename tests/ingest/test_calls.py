"""Calls in traces: what each span says, what it is called, and what cannot be used."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from credit.ingest import formats
from credit.ingest.files import Parsed
from credit.ingest.formats import LogFormat
from credit.ingest.outputs import OutputReader
from credit.records import LoggedOutput, Message, Quarantined

OWN = {"id": "o1", "occurred_at": "2025-11-01T00:00:00Z", "model": "m", "completion": "A"}


def value(content: Any) -> dict[str, Any]:
    if isinstance(content, list):
        return {"arrayValue": {"values": [value(item) for item in content]}}
    if isinstance(content, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": value(item)} for key, item in content.items()]}}
    return {"stringValue": content}


def span(number: int, parent: int | None = None, **attributes: object) -> dict[str, object]:
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.model": "m",
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Q"}]}],
        "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": "A"}]}],
    }
    said |= {f"gen_ai.{key.replace('__', '.')}": content for key, content in attributes.items()}
    above = {} if parent is None else {"parentSpanId": f"{parent:016x}"}
    return {
        "traceId": f"{7:032x}",
        "spanId": f"{number:016x}",
        **above,
        "startTimeUnixNano": str(1761955140_000_000_000 + number),
        "attributes": [{"key": key, "value": value(content)} for key, content in said.items() if content is not None],
    }


def read(tmp_path: Path, *documents: object) -> tuple[list[LoggedOutput], list[str], dict[str, int]]:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    found = OutputReader(path)
    items = list(found)
    return [item.record for item in items if isinstance(item, Parsed)], [
        item.error for item in items if isinstance(item, Quarantined)
    ], found.skipped  # fmt: skip


def document(*spans: object) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def test_structured_attributes_are_read_and_instructions_go_first(tmp_path):
    parts = [{"type": "text", "content": "Be "}, {"type": "text", "content": "brief."}]
    (output,), bad, _ = read(tmp_path, document(span(1, system_instructions=parts, response__id="r1")))
    assert not bad
    assert (output.external_id, output.completion) == ("r1", "A")
    assert output.messages == (Message("system", "Be brief."), Message("user", "Q"))


def test_ids_in_base64_are_those_in_hexadecimal(tmp_path):
    plain = span(11)
    packed = dict(plain)
    for name in ("traceId", "spanId"):
        packed[name] = base64.b64encode(bytes.fromhex(plain[name])).decode()
    found, _, _ = read(tmp_path, document(plain), document(packed))
    assert {(output.external_id, output.identity.span) for output in found} == {(f"{7:032x}:{11:016x}", f"{11:016x}")}


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"output__messages": None}, "`gen_ai.output.messages` is missing: content was not recorded here"),
        ({"input__messages": None}, "`gen_ai.input.messages` is missing"),
        ({"response__model": None}, "the log does not name the model; give it: --model-name NAME"),
        ({"output__messages": "[{"}, "`gen_ai.output.messages`: malformed JSON"),
        ({"output__messages": []}, "`gen_ai.output.messages` is empty"),
        ({"output__messages": ["A"]}, "`gen_ai.output.messages` must be a list of messages, each"),
        ({"output__messages": [{"role": "assistant"}]}, "choice 0: `content` is missing"),
        (
            {"input__messages": [{"role": "assistant", "parts": [{"type": "tool_call", "id": "c"}]}]},
            "`gen_ai.input.messages` 0: `content` holds a call of a tool without a name",
        ),
        (
            {"input__messages": [{"role": "user", "parts": [{"type": "blob"}]}]},
            "`gen_ai.input.messages` 0: `content` holds a part",
        ),
    ],
)
def test_a_span_that_cannot_be_used_is_quarantined_alone(tmp_path, attributes, error):
    found, bad, _ = read(tmp_path, document(span(1), span(2, **attributes), span(3)))
    assert len(found) == 2
    assert len(bad) == 1
    assert bad[0].startswith(f"OpenTelemetry: {error}")


def test_what_is_quarantined_of_a_document_is_the_span(tmp_path):
    path = tmp_path / "log.json"
    path.write_text(json.dumps(document(span(1), span(2, output__messages=None)), indent=1))
    (bad,) = [item for item in OutputReader(path) if isinstance(item, Quarantined)]
    assert json.loads(bad.raw) == span(2, output__messages=None)


def test_attributes_that_are_nested_without_end_are_quarantined(tmp_path, monkeypatch):
    deep = value("A")
    for _ in range(60):
        deep = {"kvlistValue": {"values": [{"key": "a", "value": deep}]}}
    other = span(1)
    other["attributes"].append({"key": "gen_ai.input.messages", "value": deep})
    _, bad, _ = read(tmp_path, document(other))
    assert "must be a list of messages" in bad[0]

    class TooDeep:
        FIELDS = frozenset[str]()

        def matches(self, record: Mapping[str, Any]) -> bool:
            return "resourceSpans" in record

        def read(self, _record: object, _context: object) -> None:
            raise RecursionError

    deep = LogFormat("deep", "deep", "resourceSpans", TooDeep())
    monkeypatch.setattr(formats, "FORMATS", (deep, *formats.FORMATS))
    found, bad, _ = read(tmp_path, document(span(1)), {**OWN})
    assert bad == ["deep: is nested too deeply"]
    assert len(found) == 1


def test_texts_that_litellm_redacted_are_no_texts(tmp_path):
    choice = {"index": 0, "message": {"role": "assistant", "content": "redacted-by-litellm"}}
    asked = {"role": "user", "content": "redacted-by-litellm"}
    call = {"id": "c", "call_type": "completion", "startTime": 1761955140, "model": "m", "messages": [asked]}
    found, bad, _ = read(tmp_path, call | {"response": {"choices": [choice]}})
    assert not found
    assert "redacted by LiteLLM" in bad[0]


@pytest.mark.parametrize(
    "attributes", [{"gen_ai.request.model": "m", "gen_ai.completion.0.content": "A"}, {"llm.model_name": "m"}]
)
def test_a_call_by_other_conventions_is_quarantined_and_not_passed_over(tmp_path, attributes):
    other = span(1)
    other["attributes"] = [{"key": key, "value": value(content)} for key, content in attributes.items()]
    _, bad, skipped = read(tmp_path, document(other))
    assert "messages` is missing" in bad[0]
    assert not skipped


def observation(number: int, parent: int | None = None, **fields: object) -> dict[str, Any]:
    given = {"id": f"{number:016x}", "traceId": "t", "parentObservationId": parent and f"{parent:016x}"}
    said = {"input": [{"role": "user", "content": "Q"}], "output": {"role": "assistant", "content": "A"}}
    moment = {"startTime": f"2025-11-01T00:00:0{number}.000Z", "model": "m", "type": "GENERATION"}
    return given | said | moment | fields


def test_a_trace_of_langfuse_names_each_generation_and_the_span_around_it(tmp_path):
    spans = [observation(1, type="SPAN"), observation(2, 1), observation(3, 2), observation(4, 1)]
    for record in ({"id": "t", "observations": spans}, {"data": [{"id": "t", "observations": spans}], "meta": {}}):
        found, bad, skipped = read(tmp_path, record)
        assert not bad
        spans = {(output.identity.span, output.identity.parent) for output in found}
        assert spans == {(f"{number:016x}", f"{above:016x}") for number, above in ((2, 1), (3, 2), (4, 1))}
        assert sum(skipped.values()) == 1


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"input": {"question": "Q"}}, "`input` must be a text, messages, or an object with messages"),
        ({"input": None}, "`input` is missing"),
        ({"input": {"messages": [{"role": "user"}]}}, "`input` `messages` 0: `content` must be"),
        ({"output": {"answer": "A"}}, "`output` must be a text, a message, or a list of messages"),
        ({"output": [{"role": "user", "content": "A"}]}, "`output` holds a message that is not the assistant's"),
        ({"output": None}, "`output` is missing"),
        ({"model": None}, "`model` must be a text"),
        ({"startTime": "2025-11-01T00:00:00"}, "`startTime` has no time zone"),
    ],
)
def test_an_observation_that_cannot_be_used_is_quarantined(tmp_path, fields, error):
    found, bad, _ = read(tmp_path, observation(1, **fields))
    assert not found
    assert len(bad) == 1
    assert bad[0].startswith(f"Langfuse: {error}")


@pytest.mark.parametrize(
    ("said", "prompt", "messages", "completion"),
    [
        ({"input": "Q", "output": "A"}, "Q", (), "A"),
        ({"input": '{"a": 1}', "output": '{"b": 2}'}, '{"a": 1}', (), '{"b": 2}'),
        ({"input": "[1]", "output": "[]"}, "[1]", (), "[]"),
        ({"input": '{"messages": [{"role": "user", "content": "Q"}], "tools": []}'}, "", (Message("user", "Q"),), "A"),
        ({"output": '{"role": "assistant", "content": "B"}'}, "", (Message("user", "Q"),), "B"),
        ({"output": {"choices": [{"message": {"content": "B"}}]}}, "", (Message("user", "Q"),), "B"),
    ],
)
def test_what_a_tracer_logged_is_a_text_unless_it_is_messages(tmp_path, said, prompt, messages, completion):
    (output,), bad, _ = read(tmp_path, observation(1, **said))
    assert not bad
    assert (output.prompt, output.messages, output.completion) == (prompt, messages, completion)
