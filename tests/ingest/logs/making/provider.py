"""A model provider on the loopback interface: answers as OpenAI's, Anthropic's and Ollama's APIs do, always the same.

What the last message begins with says what happens: `tool` calls a tool, `talk` says something and calls one, `refuse`
refuses, `null` has no content, `fail` is an error of the server; anything else is answered with a text. What is posted
to other paths is kept in `posted`, for a tracer's own server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

CREATED = 1793491140
MODEL = "my-llm"
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How lay the harbour?"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "How lay"}, {"type": "text", "text": " the harbour?"}]}]
ODD = [[{"role": "user", "content": f"{start}, please"}] for start in ("tool", "talk", "refuse", "null", "fail")]

_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bergen"}'}}
_numbers = count(1)
_batches: dict[str, bytes] = {}
posted: list[tuple[str, bytes]] = []


def answer(request: dict, *, anthropic: bool) -> tuple[int, dict]:
    """Return the status and body of the answer to a request."""
    content = request["messages"][-1]["content"]
    asked = content if isinstance(content, str) else "".join(part["text"] for part in content)
    if asked.startswith("fail"):
        error = {"type": "invalid_request_error", "message": "the model is broken"}
        return 400, {"type": "error", "error": error} if anthropic else {"error": error}
    number = next(_numbers)
    return 200, _message(asked, number) if anthropic else _completion(asked, number, request.get("n") or 1)


def _choice(asked: str, index: int) -> dict:
    message: dict = {"role": "assistant", "content": None, "refusal": None}
    if asked.startswith(("tool", "talk")):
        message |= {"tool_calls": [_CALL]}
    if asked.startswith("refuse"):
        message |= {"refusal": "I will not."}
    if not asked.startswith(("tool", "refuse", "null")):
        message |= {"content": "Let me look." if asked.startswith("talk") else f"It lay still{'.' * (index + 1)}"}
    reason = "tool_calls" if "tool_calls" in message else "stop"
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def _completion(asked: str, number: int, n: int) -> dict:
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    head = {"id": f"chatcmpl-{number:04d}", "object": "chat.completion", "created": CREATED + number, "model": MODEL}
    return {**head, "choices": [_choice(asked, index) for index in range(n)], "usage": usage}


def _message(asked: str, number: int) -> dict:
    parts: list[dict] = [{"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}]
    if not asked.startswith("tool"):
        parts += [{"type": "text", "text": "It lay"}, {"type": "text", "text": " still."}]
    if asked.startswith(("tool", "talk")):
        parts.append({"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bergen"}})
    reason = "tool_use" if asked.startswith(("tool", "talk")) else "end_turn"
    usage = {"input_tokens": 9, "output_tokens": 5}
    head = {"id": f"msg_{number:04d}", "type": "message", "role": "assistant", "model": MODEL}
    return {**head, "content": parts, "stop_reason": reason, "stop_sequence": None, "usage": usage}


def _response(request: dict, number: int) -> dict:
    """Return OpenAI's response to a request whose input is a text or messages."""
    given = request["input"]
    asked = given if isinstance(given, str) else given[-1]["content"]
    message = {"id": f"msg_{number:04d}", "type": "message", "role": "assistant", "status": "completed"}
    items: list[dict] = [{"id": f"rs_{number:04d}", "type": "reasoning", "summary": []}]
    if asked.startswith("tool"):
        call = {"type": "function_call", "id": f"fc_{number:04d}", "call_id": "call_1", "status": "completed"}
        items.append({**call, "name": "weather", "arguments": '{"city": "Bergen"}'})
    else:
        items.append({**message, "content": [{"type": "output_text", "text": "It lay still.", "annotations": []}]})
    head = {"id": f"resp_{number:04d}", "object": "response", "created_at": CREATED + number, "status": "completed"}
    kept = {"instructions": request.get("instructions"), "tools": request.get("tools", []), "tool_choice": "auto"}
    none = {"error": None, "incomplete_details": None, "metadata": {}, "parallel_tool_calls": True}
    usage = {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {**head, **none, **kept, "model": request["model"], "output": items, "temperature": 1.0, "usage": usage}


def _ollama(request: dict) -> list[dict]:
    """Return the pieces of Ollama's answer to a chat or a prompt."""
    asked = request["messages"][-1]["content"] if "messages" in request else request["prompt"]
    said: list[dict] = [{"content": "It lay"}, {"content": " still."}]
    if asked.startswith("tool"):
        said = [{"content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Bergen"}}}]}]
    elif request.get("think"):
        said = [{"content": "", "thinking": "Hm."}, *said]
    head = {"model": MODEL, "created_at": "2026-11-01T09:00:00.123456789Z"}
    spent = {"total_duration": 9_000_000, "load_duration": 1_000, "prompt_eval_count": 9, "prompt_eval_duration": 1_000}
    end = {"done": True, "done_reason": "stop", **spent, "eval_count": 5, "eval_duration": 8_000}
    if "messages" in request:
        pieces = [{**head, "message": {"role": "assistant", **piece}, "done": False} for piece in said]
        return [*pieces, {**head, "message": {"role": "assistant", "content": ""}, **end}]
    texts = [{"response": piece.get("content", ""), **({"thinking": piece["thinking"]} if "thinking" in piece else {})}
             for piece in said]  # fmt: skip
    return [*({**head, **text, "done": False} for text in texts), {**head, "response": "", **end}]


def _whole(pieces: list[dict]) -> dict:
    """Return what Ollama answers where it does not stream."""
    found, message = pieces[-1], {}
    for piece in pieces:
        for name, value in (piece.get("message") or piece).items():
            if name in ("content", "response", "thinking"):
                message[name] = message.get(name, "") + value
            elif name == "tool_calls":
                message[name] = value
    return found | ({"message": {"role": "assistant", **message}} if "message" in found else message)


def _stream() -> bytes:
    number = next(_numbers)
    head = {"id": f"chatcmpl-{number:04d}", "object": "chat.completion.chunk", "created": CREATED + number}
    deltas: list[dict] = [{"role": "assistant", "content": ""}, {"content": "It lay"}, {"content": " still."}, {}]
    lines = []
    for place, delta in enumerate(deltas):
        choice = {"index": 0, "delta": delta, "finish_reason": "stop" if place == len(deltas) - 1 else None}
        lines.append(b"data: " + json.dumps({**head, "model": MODEL, "choices": [choice]}).encode() + b"\n\n")
    return b"".join(lines) + b"data: [DONE]\n\n"


def _openai_results(requests: bytes) -> bytes:
    """Return the output file of a batch; its last request is not reached in time."""
    asked = [json.loads(line) for line in requests.splitlines()]
    results = []
    for number, item in enumerate(asked):
        status, body = answer(item["body"], anthropic=False)
        response = {"status_code": status, "request_id": f"req_{number}", "body": body}
        late = {"code": "batch_expired", "message": "This request could not be executed before the window expired."}
        last = number == len(asked) - 1
        result = {"response": None, "error": late} if last else {"response": response, "error": None}
        results.append({"id": f"batch_req_{number}", "custom_id": item["custom_id"], **result})
    return "".join(json.dumps(result) + "\n" for result in reversed(results)).encode()


def _anthropic_results(requests: bytes) -> bytes:
    asked = json.loads(requests)["requests"]
    results = []
    for item in asked[:-1]:
        status, body = answer(item["params"], anthropic=True)
        result = {"type": "succeeded", "message": body} if status == 200 else {"type": "errored", "error": body}
        results.append({"custom_id": item["custom_id"], "result": result})
    results.append({"custom_id": asked[-1]["custom_id"], "result": {"type": "expired"}})
    return "".join(json.dumps(result) + "\n" for result in results).encode()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.endswith("/files"):
            _batches["file-1"] = body.partition(b'filename="')[2].partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
            self._send({"id": "file-1", "object": "file", "purpose": "batch", "filename": "in", "bytes": 1})
        elif self.path.endswith("/messages/batches"):
            _batches["msgbatch_1"] = body
            self._send(self._anthropic_batch())
        elif self.path.endswith("/batches"):
            ids = {"id": "batch_1", "input_file_id": "file-1", "output_file_id": "out-1", "errors": None}
            self._send({**ids, "object": "batch", "status": "completed", "endpoint": "/v1/chat/completions"})
        elif self.path.endswith(("/chat/completions", "/messages")):
            request = json.loads(body)
            if request.get("stream"):
                self._send(_stream(), kind="text/event-stream")
            else:
                status, found = answer(request, anthropic=self.path.endswith("/messages"))
                self._send(found, status)
        elif self.path.endswith("/responses"):
            self._send(_response(json.loads(body), next(_numbers)))
        elif self.path.endswith(("/api/chat", "/api/generate")):
            request = json.loads(body)
            pieces = _ollama(request)
            lines = "".join(json.dumps(piece) + "\n" for piece in pieces).encode()
            self._send(lines if request.get("stream") else _whole(pieces), kind="application/x-ndjson")
        else:
            posted.append((self.path, body))
            self._send({})

    def do_GET(self) -> None:
        if self.path.endswith("/files/out-1/content"):
            self._send(_openai_results(_batches["file-1"]), kind="application/octet-stream")
        elif self.path.endswith("/results"):
            self._send(_anthropic_results(_batches["msgbatch_1"]), kind="application/binary")
        else:
            self._send(self._anthropic_batch())

    def _anthropic_batch(self) -> dict:
        host = self.headers["host"]
        ids = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "ended", "request_counts": {}}
        times = {"created_at": "2026-11-01T09:00:00Z", "ended_at": "2026-11-01T09:30:00Z"}
        return {**ids, **times, "results_url": f"http://{host}/v1/messages/batches/msgbatch_1/results"}

    def _send(self, content: dict | bytes, status: int = 200, kind: str = "application/json") -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def provider() -> Iterator[str]:
    """Serve on a free port; yields the base URL, like `http://127.0.0.1:40000`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
