"""Request and response are read by the API of the model server, whole or streamed, whoever logged them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings

from credit.ingest.batch_requests import read_batch_requests
from credit.ingest.files import Parsed
from credit.ingest.outputs import OutputReader
from credit.ingest.pseudonyms import PseudonymKey
from credit.records import LoggedOutput, Message, Quarantined
from tests.ingest.spoiling import fuzz, spoilt

AT = "2025-11-01T00:00:00Z"
SECONDS = 1761955200
USER = {"role": "user", "content": "Why rain?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "sky", "arguments": '{"at":"sea"}'}}
TOOL = {"type": "function", "function": {"name": "sky", "parameters": {"type": "object"}}}
HEAD = {"id": "chatcmpl-1", "created": SECONDS, "model": "m"}
CHUNK = {**HEAD, "object": "chat.completion.chunk"}
DONE = {"role": "assistant", "content": "Hills."}


def chat(message: object, **more: object) -> dict[str, object]:
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {**HEAD, "object": "chat.completion", "choices": [choice], **more}


def delta(finish: str | None = None, **said: object) -> dict[str, object]:
    return {**CHUNK, "choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def sse(*events: object) -> str:
    return "".join(f"event: x\ndata: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


RESPONSES = {
    "id": "resp_1",
    "object": "response",
    "created_at": SECONDS,
    "status": "completed",
    "model": "m",
    "output": [
        {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "Clouds."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hills."}]},
    ],
}
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "thinking", "thinking": "Clouds.", "signature": "x"}, {"type": "text", "text": "Hills."}],
}
ANTHROPIC_EVENTS = [
    {"type": "message_start", "message": {**ANTHROPIC, "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Clouds."}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hil"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ls."}},
    {"type": "message_stop"},
]
OLLAMA = {"model": "m", "created_at": AT, "done": True}
GEMINI = {
    "responseId": "g1", "modelVersion": "models/m", "createTime": AT,
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "Clouds.", "thought": True}, {"text": "Hills."}]},
         "finishReason": "STOP", "index": 0},
    ],
}  # fmt: skip
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Why rain?"}]}]}
CONVERSE = {"output": {"message": {"role": "assistant", "content": [{"text": "Hills."}]}}, "stopReason": "end_turn"}
CONVERSE_EVENTS = [
    {"messageStart": {"role": "assistant"}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Clo"}}}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "uds."}}}},
    {"contentBlockStop": {"contentBlockIndex": 0}},
    {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"text": "Hil"}}},
    {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"text": "ls."}}},
    {"contentBlockStop": {"contentBlockIndex": 1}},
    {"messageStop": {"stopReason": "end_turn"}},
    {"metadata": {"usage": {"outputTokens": 3}}},
]
CALLING_EVENTS = [
    CONVERSE_EVENTS[0],
    {"contentBlockStart": {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "c1", "name": "sky"}}}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"toolUse": {"input": '{"at":'}}}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"toolUse": {"input": '"sea"}'}}}},
    {"messageStop": {"stopReason": "tool_use"}},
]
LLAMA = {"content": "Hills.", "prompt": "Why rain?", "model": "m", "stop": True, "tokens_predicted": 3}
TEXTS = {**HEAD, "id": "cmpl-1", "object": "text_completion"}


def both(request: dict[str, object], response: object, **more: object) -> dict[str, object]:
    return {"request": {"model": "m", **request}, "response": response, "timestamp": AT, "request_id": "r1", **more}


CHAT = {"messages": [USER]}
THOUGHT = "Clouds."
READ = {
    # name: record, source, thoughts
    "chat": (both(CHAT, chat(DONE)), "openai", ""),
    "chat with thoughts": (both(CHAT, chat({**DONE, "reasoning_content": "\nClouds.\n"})), "openai", THOUGHT),
    "chat with newer thoughts": (both(CHAT, chat({**DONE, "reasoning": "Clouds."})), "openai", THOUGHT),
    "chat with marked thoughts": (
        both(CHAT, chat({"role": "assistant", "content": "<think>\nClouds.\n</think>\n\nHills."})), "openai", THOUGHT
    ),
    "chat with thoughts that the prompt opened": (
        both(CHAT, chat({"role": "assistant", "content": "Clouds.</think>Hills."})), "openai", THOUGHT
    ),
    "chat streamed as events": (
        both(CHAT, sse(delta(role="assistant"), delta(reasoning_content="Clouds."), delta(content="Hil"),
                       delta(content="ls."), delta("stop"))), "openai", THOUGHT
    ),
    "chat streamed as a list": (both(CHAT, [delta(content="Hills."), delta("stop")]), "openai", ""),
    "chat in JSON texts": ({**both({}, json.dumps(chat(DONE))), "request": json.dumps(CHAT)}, "openai", ""),
    "responses": (both({"input": "Why rain?"}, RESPONSES), "openai", THOUGHT),
    "responses streamed": (
        both({"input": [USER]}, sse({"type": "response.created", "response": {}},
                                    {"type": "response.completed", "response": RESPONSES})), "openai", THOUGHT
    ),
    "anthropic": (both(CHAT, ANTHROPIC), "anthropic", THOUGHT),
    "anthropic streamed": (both(CHAT, sse(*ANTHROPIC_EVENTS)), "anthropic", THOUGHT),
    "ollama": (both(CHAT, {**OLLAMA, "message": {**DONE, "thinking": "Clouds."}}), "ollama", THOUGHT),
    "ollama generate": (both({"prompt": "Why rain?"}, {**OLLAMA, "response": "Hills."}), "ollama", ""),
    "ollama streamed": (
        both(CHAT, "".join(json.dumps({**OLLAMA, "done": end, "message": {"role": "assistant", "content": text}}) + "\n"
                           for text, end in (("Hil", False), ("ls.", False), ("", True)))), "ollama", ""
    ),
    "gemini": (both(CONTENTS, GEMINI), "gemini", THOUGHT),
    "gemini streamed": (
        both(CONTENTS, [{**GEMINI, "candidates": [{"content": {"parts": [{"text": "Hil"}]}}]},
                        {"candidates": [{"content": {"parts": [{"text": "ls."}]}, "finishReason": "STOP"}]}]),
        "gemini", ""
    ),
    "converse": (both({"messages": [{"role": "user", "content": [{"text": "Why rain?"}]}]}, CONVERSE), "bedrock", ""),
    "converse streamed": (both(CHAT, CONVERSE_EVENTS), "bedrock", THOUGHT),
}  # fmt: skip
READ_PROMPTS = {
    "completions": (both({"prompt": "Why rain?"}, {**TEXTS, "choices": [{"index": 0, "text": "Hills."}]}), "openai"),
    "completions with echo": (
        both({"prompt": "Why rain?", "echo": True}, {**TEXTS, "choices": [{"index": 0, "text": "Why rain?Hills."}]}),
        "openai",
    ),
    "llama.cpp": (both({"prompt": "Why rain?"}, LLAMA), "llama.cpp"),
    "llama.cpp alone": ({**LLAMA, "timestamp": AT}, "llama.cpp"),
    "sglang": (
        both({"text": "Why rain?"}, {"text": "Hills.", "meta_info": {"id": "s1", "finish_reason": {"type": "stop"}}}),
        "sglang",
    ),
    "ollama raw": (both({"prompt": "Why rain?", "raw": True}, {**OLLAMA, "response": "Hills."}), "ollama"),
}


def read(tmp_path: Path, *records: object) -> tuple[list[LoggedOutput], list[str], OutputReader]:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    reader = OutputReader(path)
    items = list(reader)
    outputs = [item.record for item in items if isinstance(item, Parsed)]
    return outputs, [item.error for item in items if isinstance(item, Quarantined)], reader


@pytest.mark.parametrize("name", READ)
def test_a_chat_is_read_by_its_servers_api(tmp_path, name):
    record, source, thoughts = READ[name]
    (output,), bad, reader = read(tmp_path, record)
    assert not bad
    assert not reader.notices
    assert (output.messages, output.completion) == ((Message("user", "Why rain?"),), "Hills.")
    assert (output.source, output.model, output.thoughts) == (source, "m", thoughts)
    assert f"{output.occurred_at:%Y-%m-%dT%H:%M:%SZ}" == AT
    assert output.identity.request == "r1"


@pytest.mark.parametrize("name", READ_PROMPTS)
def test_a_prompt_is_read_as_the_model_saw_it(tmp_path, name):
    record, source = READ_PROMPTS[name]
    (output,), bad, _ = read(tmp_path, record)
    assert not bad
    assert (output.prompt, output.messages, output.completion) == ("Why rain?", (), "Hills.")
    assert (output.source, output.model) == (source, "m")


def test_each_prompt_of_a_completion_is_a_call(tmp_path):
    choices = [{"index": n, "text": f" {n}"} for n in (1, 0)]
    outputs, _, _ = read(tmp_path, both({"prompt": ["A", "B"]}, {**TEXTS, "choices": choices}))
    assert {(output.external_id, output.prompt, output.completion) for output in outputs} == {
        ("cmpl-1#0", "A", " 0"),
        ("cmpl-1#1", "B", " 1"),
    }


def with_ids(choice: dict[str, object], **more: object) -> dict[str, object]:
    return {"index": 0, "finish_reason": "stop", "token_ids": [7, 8], **choice, **more}


WITH_IDS = {
    "chat": both(CHAT, {**chat(DONE), "prompt_token_ids": [1, 2], "choices": [with_ids({"message": DONE})]}),
    "chat streamed": both(
        CHAT,
        [
            {**CHUNK, "prompt_token_ids": [1, 2], "choices": [{"index": 0, "delta": {"role": "assistant"}}]},
            {**CHUNK, "choices": [{"index": 0, "delta": {"content": "Hil"}, "token_ids": [7]}]},
            {**CHUNK, "choices": [with_ids({"delta": {"content": "ls."}}, token_ids=[8])]},
        ],
    ),
    "completions": both(
        {"prompt": "Why rain?"}, {**TEXTS, "choices": [with_ids({"text": "Hills."}, prompt_token_ids=[1, 2])]}
    ),
    "completions streamed": both(
        {"prompt": "Why rain?"},
        [
            {**TEXTS, "choices": [{"index": 0, "text": "Hil", "token_ids": [7], "prompt_token_ids": [1, 2]}]},
            {**TEXTS, "choices": [{"index": 0, "text": "ls.", "token_ids": [8], "finish_reason": "stop"}]},
        ],
    ),
    "completions of tokens": both({"prompt": [1, 2]}, {**TEXTS, "choices": [with_ids({"text": "Hills."})]}),
    "llama.cpp": both({"prompt": [1, 2]}, {**LLAMA, "prompt": "Why rain?", "tokens": [7, 8]}),
    "sglang": both(
        {"input_ids": [1, 2]},
        {"text": "Hills.", "output_ids": [7, 8], "meta_info": {"id": "s1", "finish_reason": {"type": "stop"}}},
    ),
}


@pytest.mark.parametrize("name", WITH_IDS)
def test_token_ids_that_a_server_returns_are_kept_beside_the_text(tmp_path, name):
    (output,), bad, reader = read(tmp_path, WITH_IDS[name])
    assert (bad, reader.notices) == ([], ())
    assert output.completion == "Hills."
    assert (output.prompt_ids, output.completion_ids) == ((1, 2), (7, 8))
    assert bool(output.prompt or output.messages) == (name not in ("completions of tokens", "sglang"))


def test_each_prompt_of_tokens_is_a_call_and_no_two_of_them_are_one_question(tmp_path):
    choices = [{"index": n, "text": "Hills."} for n in (0, 1)]
    outputs, _, _ = read(tmp_path, both({"prompt": [[1, 2], [3]]}, {**TEXTS, "choices": choices}))
    assert [output.prompt_ids for output in outputs] == [(1, 2), (3,)]
    key = PseudonymKey(b"k" * 32)
    said = [(output.model, output.prompt, output.messages, output.completion, output.prompt_ids) for output in outputs]
    assert len({key.text(*one) for one in said}) == 2
    alone = [both({"prompt": [number]}, {**LLAMA, "prompt": None}, request_id=None) for number in (1, 2)]
    unnamed, _, _ = read(tmp_path, *alone)
    assert len({output.external_id for output in unnamed}) == 2


def test_a_call_without_an_id_keeps_the_name_that_its_content_gave_it(tmp_path):
    (output,), _, _ = read(tmp_path, {**both({"prompt": "Why rain?"}, LLAMA), "request_id": None})
    (with_tokens,), _, _ = read(
        tmp_path, {**both({"prompt": "Why rain?"}, {**LLAMA, "tokens": [7]}), "request_id": None}
    )
    assert output.external_id == with_tokens.external_id == "content-bf78c645abde3bf57386a4366073109d"


TURNS = (
    Message("user", "Why rain?"),
    Message(
        "assistant",
        "",
        '{"tool_calls":[{"function":{"arguments":{"at":"sea"},"name":"sky"},"id":"c1","type":"function"}]}',
    ),
    Message("tool", "wet", '{"tool_call_id":"c1"}'),
)
USED = {
    "chat": both(
        {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "wet"},
            ],
            "tools": [TOOL],
        },
        chat(DONE),
    ),
    "responses": both(
        {
            "input": [
                USER,
                {"type": "function_call", "call_id": "c1", "name": "sky", "arguments": '{"at":"sea"}'},
                {"type": "function_call_output", "call_id": "c1", "output": "wet"},
            ],
            "tools": [{"type": "function", "name": "sky", "parameters": {"type": "object"}}],
        },
        RESPONSES,
    ),
    "anthropic": both(
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "c1", "name": "sky", "input": {"at": "sea"}}],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "wet"}]},
            ],
            "tools": [{"name": "sky", "input_schema": {"type": "object"}}],
        },
        ANTHROPIC,
    ),
}


@pytest.mark.parametrize("name", USED)
def test_a_history_of_tools_is_one_context_in_whatever_shape(tmp_path, name):
    (output,), _, _ = read(tmp_path, USED[name])
    assert output.messages == TURNS
    assert json.loads(output.template) == {"tools": [TOOL]}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            both(CHAT, chat({"role": "assistant", "content": None, "tool_calls": [CALL]})),
            "the answer is a call of a tool",
        ),
        (
            both(CHAT, {**ANTHROPIC, "content": ANTHROPIC["content"][:1]}),
            "the model thought and did not begin its answer",
        ),
        (both({"input": "a"}, {"object": "list", "data": [{"embedding": [0.1]}]}), "embeddings hold no generated text"),
        (both({"input": "a"}, {"results": [{"flagged": False}]}), "moderations hold no generated text"),
        (both(CONTENTS, {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {}}), "the model refused"),
        (both(CHAT, CALLING_EVENTS), "the answer is a call of a tool"),
        (both(CHAT, {"error": {"message": "overloaded"}}), "the call failed"),
        (both(CHAT, chat(DONE), status_code=500), "the call failed"),
        ({"request_id": "r1", "request": CHAT}, "requests, which belong to their responses"),
    ],
)
def test_what_can_hold_no_text_is_skipped_with_the_reason(tmp_path, record, reason):
    outputs, bad, reader = read(tmp_path, record)
    assert (outputs, bad, reader.skipped) == ([], [], {reason: 1})


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({**OLLAMA, "message": DONE}, "Ollama: the request's `messages` are missing; log the request beside"),
        ({**RESPONSES}, "OpenAI Responses: the request's `input` is missing"),
        ({**ANTHROPIC, "timestamp": AT}, "Anthropic messages: the request's `messages` are missing"),
        (
            both({"input": "a", "previous_response_id": "resp_0"}, RESPONSES),
            "OpenAI Responses: the request has a `prev",
        ),
        (
            both({"prompt": [1, "a", [2]]}, {**TEXTS, "choices": [{"text": "A"}]}),
            "OpenAI completions: `prompt` must be a text, token ids, or a list of those",
        ),
        (
            both({"prompt": [1], "echo": True}, {**TEXTS, "choices": [{"text": "A"}]}),
            "OpenAI completions: the request has `echo`, and its prompt is token ids",
        ),
        (
            both(CHAT, {**chat(DONE), "prompt_token_ids": ["a"]}),
            "OpenAI chat: `prompt_token_ids` must be a list of token ids",
        ),
        (both(CHAT, sse(delta(content="Hil"), delta(content="ls."))), "OpenAI chat: the stream ends before its answer"),
        (both(CHAT, sse(*ANTHROPIC_EVENTS[:-1])), "Anthropic messages: the stream ends before its answer"),
        (both(CHAT, CONVERSE_EVENTS[:-2]), "Bedrock Converse: the stream ends before its answer"),
        (both(CHAT, CONVERSE_EVENTS[:1]), "Bedrock Converse: the stream ends before its answer"),
        (
            {"request": CHAT, "response": {k: v for k, v in ANTHROPIC.items() if k != "x"}},
            "Anthropic messages: the log does",
        ),
        (
            both(CHAT, {"generated": "Hills."}),
            "request and response: the response holds generated, which is no response of",
        ),
        (
            both({**CHAT, "continue_final_message": True}, chat(DONE)),
            "OpenAI chat: the answer continues the request's last",
        ),
        (
            both({**CHAT, "chat_template_kwargs": {"tokenize": 1}}, chat(DONE)),
            "OpenAI chat: `chat_template_kwargs` sets tok",
        ),
        (
            both({**CHAT, "chat_template": "{{ 1 }}"}, chat(DONE)),
            "OpenAI chat: `chat_template` is another than the model's",
        ),
    ],
)
def test_a_record_is_named_for_what_it_is_with_what_would_make_it_readable(tmp_path, record, error):
    outputs, bad, _ = read(tmp_path, record)
    assert not outputs
    assert bad[0].startswith(error), bad


def bedrock(given: object, answer: object, **more: object) -> dict[str, object]:
    sides = {"input": {"inputBodyJson": given}, "output": {"outputBodyJson": answer}}
    model = "arn:aws:bedrock:eu-north-1::imported-model/m"
    return {"schemaType": "ModelInvocationLog", "timestamp": AT, "requestId": "r1", "modelId": model, **sides, **more}


def run(**fields: object) -> dict[str, object]:
    human = {"id": ["langchain", "schema", "messages", "HumanMessage"], "kwargs": {"content": "Why rain?"}}
    ai = {"id": ["langchain", "schema", "messages", "AIMessage"], "kwargs": {"content": "Hills."}}
    said = {"generations": [[{"text": "Hills.", "message": {"lc": 1, "type": "constructor", **ai}}]]}
    asked = {"messages": [[{"lc": 1, "type": "constructor", **human}]]}
    extra = {"metadata": {"ls_model_name": "m"}}
    ids = {"id": "a1", "trace_id": "a0", "run_type": "llm", "start_time": "2025-11-01T00:00:00"}
    return {**ids, "inputs": asked, "outputs": said, "extra": extra, **fields}


def helicone(given: object, answer: object, **more: object) -> dict[str, object]:
    sides = {"request_body": given, "response_body": answer, "response_status": 200, "request_model": "m"}
    return {"request_id": "a1", "request_created_at": "2025-11-01T00:00:00.000Z", **sides, **more}


def woven(op: str, given: object, answer: object, **more: object) -> dict[str, object]:
    """A call of Weave, with its name as in the service."""
    ids = {"id": "a1", "trace_id": "a0", "parent_id": None, "op_name": f"weave:///shop/answers/op/{op}:Zqu0"}
    return {**ids, "started_at": AT, "inputs": given, "output": answer, "exception": None, "attributes": {}, **more}


def passed(given: object, answer: object) -> dict[str, object]:
    """A payload of LiteLLM of a call that it passed through."""
    asked = [{"role": "user", "content": json.dumps(given)}]
    call = {"id": "a1", "call_type": "pass_through_endpoint", "startTime": SECONDS, "model": "m"}
    return {**call, "messages": asked, "response": {"response": json.dumps(answer)}}


OWN_SERVER = {"attributes": {"weave": {"kind": "llm"}}}


def vertex(given: object, answer: object) -> dict[str, object]:
    return {"logging_time": "2025-11-01 00:00:00 UTC", "full_request": given, "full_response": answer, "model": "m"}


KEPT = {
    "bedrock, anthropic": (bedrock(CHAT, ANTHROPIC), "bedrock:r1"),
    "bedrock, anthropic streamed": (bedrock(CHAT, ANTHROPIC_EVENTS), "bedrock:r1"),
    "bedrock, converse": (bedrock(CHAT, CONVERSE), "bedrock:r1"),
    "bedrock, converse streamed": (bedrock(CHAT, CONVERSE_EVENTS), "bedrock:r1"),
    "helicone, openai": (helicone(CHAT, chat(DONE)), "helicone:a1"),
    "helicone, anthropic streamed": (helicone(CHAT, {"streamed_data": ANTHROPIC_EVENTS}), "helicone:a1"),
    "helicone, a page": ({"data": [helicone(CHAT, chat(DONE))], "error": None}, "helicone:a1"),
    "weave, openai": (woven("openai.chat.completions.create", CHAT, chat(DONE)), "weave:a1"),
    "weave, anthropic": (woven("anthropic.Messages.create", CHAT, ANTHROPIC), "weave:a1"),
    "weave, a response from an own function": (woven("ask", CHAT, chat(DONE)), "weave:a1"),
    "weave, own server": (woven("ask", {"model": "m", **CHAT}, "Hills.", **OWN_SERVER), "weave:a1"),
    "litellm, passed through": (passed(CHAT, chat(DONE)), "litellm:a1"),
    "vertex, gemini": (vertex(CONTENTS, GEMINI), "vertex:g1"),
    "vertex, anthropic in JSON texts": (vertex(json.dumps(CHAT), json.dumps(ANTHROPIC)), "vertex:msg_1"),
    "langsmith, langchain": (run(), "langsmith:a1"),
    "langsmith, openai": (run(inputs=CHAT, outputs=chat(DONE)), "langsmith:a1"),
    "langsmith, export": (run(inputs=json.dumps(CHAT), outputs=json.dumps(chat(DONE))), "langsmith:a1"),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_loggers_requests_and_responses_are_read_by_the_same_apis(tmp_path, name):
    record, called = KEPT[name]
    (output,), bad, _ = read(tmp_path, record)
    assert not bad
    assert (output.messages, output.completion) == ((Message("user", "Why rain?"),), "Hills.")
    assert (output.name, output.model, f"{output.occurred_at:%Y-%m-%dT%H:%M:%SZ}") == (called, "m", AT)


@pytest.mark.parametrize(
    ("record", "skipped", "error"),
    [
        (bedrock({"inputText": "a"}, {"embedding": [0.1]}), "embeddings hold no generated text", ""),
        (bedrock(CHAT, ANTHROPIC, errorCode="ThrottlingException"), "the call failed", ""),
        (bedrock(CHAT, None), "", "Bedrock: `output.outputBodyJson` is missing"),
        (helicone(CHAT, {}, response_status=500), "the call failed", ""),
        (helicone(CHAT, {}, response_status=-3), "the call failed", ""),
        (helicone({"input": "a"}, {"data": [{"embedding": [0.1]}]}), "embeddings hold no generated text", ""),
        (helicone({}, {}), "", "Helicone: `request_body` is missing; export it with --include-body"),
        (helicone(CHAT, {"generated": "a"}), "", "Helicone: the response holds generated"),
        (woven("openai.embeddings.create", {"input": "a"}, {}), "spans that are no call of a model", ""),
        (woven("ask", CHAT, "Hills."), "spans that are no call of a model", ""),
        (woven("openai.chat.completions.create", CHAT, None, exception="no"), "the call failed", ""),
        (woven("openai.chat.completions.create", CHAT, None), "", "Weave: `output` is missing; the call had not ended"),
        (woven("litellm.completion", CHAT, [1]), "", "Weave: `output` must be a text, a message, or a list"),
        (passed({"inputs": "a"}, chat(DONE)), "", "LiteLLM: `messages` hold no request of a known API"),
        (run(run_type="chain"), "spans that are no call of a model", ""),
        (run(error="no"), "the call failed", ""),
        (run(run_type="song"), "", "LangSmith: `run_type` is 'song', which is not known"),
        (run(extra={}), "", "LangSmith: the log does not name the model"),
        (vertex(CONTENTS, {"predictions": []}), "", "Vertex AI: the response holds predictions"),
    ],
)
def test_what_a_logger_kept_without_a_text_is_skipped_or_named(tmp_path, record, skipped, error):
    outputs, bad, reader = read(tmp_path, record)
    assert not outputs
    assert list(reader.skipped) == ([skipped] if skipped else [])
    assert [item.startswith(error) for item in bad] == ([True] if error else [])


@pytest.mark.parametrize("name", ["timestamp", "time", "created_at", "start_time"])
@pytest.mark.parametrize("moment", [AT, "2025-11-01T01:00:00+01:00", *(SECONDS * 1000**power for power in range(4))])
def test_a_time_beside_is_read_in_any_unit_under_any_name(tmp_path, name, moment):
    (output,), bad, _ = read(tmp_path, {"request": CHAT, "response": ANTHROPIC, name: moment})
    assert not bad
    assert f"{output.occurred_at:%Y-%m-%dT%H:%M:%SZ}" == AT


@pytest.mark.parametrize("sides", [("request", "response"), ("input", "output"), ("request_body", "response_body")])
@pytest.mark.parametrize("dressed", [lambda side: side, lambda side: {"status": 200, "body": side}, json.dumps])
def test_sides_stand_bare_or_in_a_body_or_as_json(tmp_path, sides, dressed):
    (output,), bad, _ = read(tmp_path, dict(zip(sides, map(dressed, (CHAT, chat(DONE))), strict=True)))
    assert not bad
    assert (output.messages, output.completion) == ((Message("user", "Why rain?"),), "Hills.")


def test_requests_on_lines_of_their_own_are_joined_if_the_file_begins_with_one(tmp_path):
    lines = [{"request_id": "r1", "request": {"model": "m", **CHAT}}, {"request_id": "r1", "response": chat(DONE)}]
    for order, expected in ((lines, 1), (lines[::-1], 0)):
        path = tmp_path / "log.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in order))
        items = list(OutputReader(path, requests=read_batch_requests([path])))
        assert [item.record.completion for item in items if isinstance(item, Parsed)] == ["Hills."] * expected
        assert [item.error for item in items if isinstance(item, Quarantined)] == [
            "OpenAI chat: the request's `messages` are missing; log the request beside the response"
        ] * (1 - expected)


@pytest.mark.parametrize("name", ["template", "suffix", "context"])
def test_what_ollama_put_before_a_prompt_and_did_not_log_cannot_be_repeated(tmp_path, name):
    record = both({"prompt": "Why rain?", name: "x"}, {**OLLAMA, "response": "Hills."})
    _, bad, _ = read(tmp_path, record)
    assert bad == [f"Ollama: the request has a `{name}`: what the model saw cannot be repeated from the log"]


def test_a_prompt_and_its_generation_in_bedrocks_log_are_read_whole_or_in_pieces(tmp_path):
    whole = bedrock({"prompt": "Why rain?"}, {"generation": "Hills.", "stop_reason": "stop"})
    pieces = bedrock({"prompt": "Why rain?"}, [{"generation": "Hil"}, {"generation": "ls."}])
    for record in (whole, pieces):
        (output,), bad, _ = read(tmp_path, record)
        assert not bad
        assert (output.prompt, output.completion) == ("Why rain?", "Hills.")


EVERY = [record for record, *_ in (*READ.values(), *READ_PROMPTS.values(), *KEPT.values())] + list(USED.values())


@given(spoilt(EVERY))
@settings(max_examples=fuzz(150))
def test_every_record_is_read_skipped_or_quarantined_and_none_is_lost(tmp_path_factory, found):
    path = tmp_path_factory.getbasetemp() / "spoilt.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in found))
    reader = OutputReader(path)
    items = list(reader)
    assert len(items) + sum(reader.skipped.values()) >= len(found)
    for item in items:
        assert isinstance(item, Parsed | Quarantined)
        if isinstance(item, Parsed):
            assert isinstance(item.record, LoggedOutput)
            assert item.record.completion.strip()
            json.dumps([item.record.external_id, item.record.template], ensure_ascii=False).encode()
