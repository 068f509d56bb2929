"""The proxy in docs/ passes calls through, streamed ones too, and its log is read as those calls."""

from __future__ import annotations

import json
import runpy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from credit.ingest.files import Parsed
from credit.ingest.outputs import OutputReader

PROXY = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "logging_proxy.py"))
HEAD = {"id": "chatcmpl-1", "created": 1761955140, "model": "my-llm"}
MESSAGE = {"role": "assistant", "content": "It lay still."}
ASKED = {"model": "my-llm", "messages": [{"role": "user", "content": "How lay the harbour?"}]}


class FakeServer(BaseHTTPRequestHandler):
    """Server that answers whole, in a stream, or with an error, as it is asked."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer a call."""
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        kind = "text/event-stream" if request.get("stream") else "application/json"
        if request.get("stream"):
            deltas = [{"content": "It lay"}, {"content": " still."}, {}]
            choices = [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"} for delta in deltas]
            chunk = {**HEAD, "id": "chatcmpl-2", "object": "chat.completion.chunk"}
            body = "".join(f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n" for choice in choices)
            body += "data: [DONE]\n\n"
        else:
            choice = {"index": 0, "message": MESSAGE, "finish_reason": "stop"}
            seen = {"prompt_token_ids": [1, 2]} if request.get("return_token_ids") else {}
            body = json.dumps({**HEAD, **seen, "object": "chat.completion", "choices": [choice]})
        self.send_response(500 if request.get("fail") else 200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(json.dumps({"error": "broken"}).encode() if request.get("fail") else body.encode())


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[str]:
    """Serve in a thread; the address."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("token_ids", [False, True])
def test_calls_pass_through_the_proxy_and_its_log_is_read(tmp_path, token_ids):
    log = tmp_path / "calls.jsonl"
    answered = []
    with (
        serving(ThreadingHTTPServer(("127.0.0.1", 0), FakeServer)) as server,
        serving(PROXY["serve"](f"http://{server}", 0, log, token_ids=token_ids)) as proxy,
    ):
        for more in ({}, {"stream": True}, {"fail": True}):
            connection = HTTPConnection(proxy, timeout=10)
            connection.request("POST", "/v1/chat/completions", json.dumps({**ASKED, **more}))
            response = connection.getresponse()
            answered.append((response.status, b"still." in response.read()))
            connection.close()
    assert answered == [(200, True), (200, True), (500, False)]
    reader = OutputReader(log)
    outputs = [item.record for item in reader if isinstance(item, Parsed)]
    said = {(output.name, output.messages[0].content, output.completion) for output in outputs}
    assert said == {(f"openai:chatcmpl-{n}", "How lay the harbour?", "It lay still.") for n in (1, 2)}
    assert reader.skipped == {"the call failed": 1}
    assert all(output.identity.request for output in outputs)
    assert {output.prompt_ids for output in outputs} == ({(), (1, 2)} if token_ids else {()})
