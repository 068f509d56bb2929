"""Requests and responses of Ollama's client, as people log them: python ollama_calls.py ollama.jsonl.

Ollama does not run here: provider.py answers. A response is what the client's types make of it; a streamed one is the
list of its pieces.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ollama
from provider import MODEL, ODD, QUESTION, provider


def main() -> None:
    lines: list[str] = []

    def log(request: dict, response: object) -> None:
        listed = [response] if hasattr(response, "model_dump") else list(response)
        pieces = [piece.model_dump(exclude_none=True) for piece in listed]
        whole = pieces[0] if listed[0] is response else pieces
        lines.append(json.dumps({"request_id": f"r{len(lines)}", "request": request, "response": whole}) + "\n")

    with provider() as url:
        client = ollama.Client(host=url)
        for asked in (QUESTION, *ODD[:1]):
            for more in ({}, {"think": True}, {"stream": True, "think": True}):
                request = {"model": MODEL, "messages": asked, **more}
                log(request, client.chat(**request))
        for more in ({}, {"system": "Be brief."}, {"raw": True}, {"stream": True, "think": True}):
            request = {"model": MODEL, "prompt": "How lay the harbour?", **more}
            log(request, client.generate(**request))
    Path(sys.argv[1]).write_text("".join(lines))


main()
