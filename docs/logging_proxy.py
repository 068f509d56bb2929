"""Logs the calls of an OpenAI-compatible server as `credit ingest-outputs` reads them; everything passes through.

    python logging_proxy.py --server http://127.0.0.1:8000 --port 8080 --log calls.jsonl

It needs nothing but Python. A line holds the request, the response (of a stream its text), the status and the time. It
is written after the client has its answer, whole or not at all; a call that its client broke off is not logged.
`--token-ids` asks a vLLM server for the ids of tokens too; the client gets them as well.
"""

import argparse
import json
import threading
import uuid
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

NOT_PASSED = {"connection", "content-length", "host", "transfer-encoding", "accept-encoding"}
LOCK = threading.Lock()


class LoggingProxy(BaseHTTPRequestHandler):
    """Handler of requests: passes each on to the server, and logs those of POST."""

    server_url, log, token_ids = "", Path(), False

    def do_GET(self) -> None:
        """Pass on, and log nothing."""
        self.pass_on(b"")

    def do_POST(self) -> None:
        """Pass on a call, and log it once it is answered."""
        begun = datetime.now(UTC)
        request = self.asking(self.rfile.read(int(self.headers.get("content-length", 0))))
        status, response = self.pass_on(request)
        try:
            asked = json.loads(request)
            answered = response.decode() if response.lstrip()[:1] != b"{" else json.loads(response)
        except ValueError:
            return  # audio and the like
        call = {"request_id": self.headers.get("x-request-id") or str(uuid.uuid4()), "timestamp": begun.isoformat()}
        line = json.dumps({**call, "path": self.path, "status": status, "request": asked, "response": answered})
        with LOCK, self.log.open("a") as file:
            file.write(line + "\n")

    def asking(self, request: bytes) -> bytes:
        """Return a request, of a completion one that asks for the ids of its tokens."""
        if not self.token_ids or not self.path.endswith("/completions"):
            return request
        try:
            return json.dumps({**json.loads(request), "return_token_ids": True}).encode()
        except (ValueError, TypeError):
            return request  # the server says what is wrong with it

    def pass_on(self, body: bytes) -> tuple[int, bytes]:
        """Send a request to the server and its response to the client, piece by piece; return status and body."""
        url = urlsplit(self.server_url)
        connection = (HTTPSConnection if url.scheme == "https" else HTTPConnection)(url.netloc, timeout=3600)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED}
        connection.request(self.command, url.path.rstrip("/") + self.path, body, headers)
        response = connection.getresponse()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in NOT_PASSED:
                self.send_header(name, value)
        self.send_header("connection", "close")
        self.end_headers()
        pieces = []
        while piece := response.read1(65536):
            self.wfile.write(piece)
            self.wfile.flush()
            pieces.append(piece)
        return response.status, b"".join(pieces)


def serve(server: str, port: int, log: Path, *, token_ids: bool = False) -> ThreadingHTTPServer:
    """Return the proxy of a server, ready to serve; it writes to `log`."""
    handler = type("Handler", (LoggingProxy,), {"server_url": server, "log": log, "token_ids": token_ids})
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--server", required=True)
    options.add_argument("--port", type=int, default=8080)
    options.add_argument("--log", type=Path, default=Path("calls.jsonl"))
    options.add_argument("--token-ids", action="store_true")
    given = options.parse_args()
    serve(given.server, given.port, given.log, token_ids=given.token_ids).serve_forever()
