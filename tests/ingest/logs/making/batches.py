"""Batches by OpenAI's and Anthropic's clients, whose server is provider.py: python batches.py FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anthropic
import openai
from provider import MODEL, ODD, PARTS, QUESTION, provider

ENDPOINT = "/v1/chat/completions"
ASKED = [QUESTION, PARTS, *ODD, [{"role": "user", "content": "too late?"}]]


def main(folder: Path) -> None:
    """Write requests and results of both."""
    asked = [
        {"custom_id": f"request-{n}", "method": "POST", "url": ENDPOINT, "body": {"model": MODEL, "messages": m}}
        for n, m in enumerate(ASKED)
    ]  # fmt: skip
    asked[1]["body"]["n"] = 2
    requests = folder / "openai-batch-input.jsonl"
    requests.write_text("".join(json.dumps(item) + "\n" for item in asked))
    with provider() as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        uploaded = client.files.create(file=requests.open("rb"), purpose="batch")
        batch = client.batches.create(input_file_id=uploaded.id, endpoint=ENDPOINT, completion_window="24h")
        client.files.content(batch.output_file_id).write_to_file(folder / "openai-batch-output.jsonl")

        claude = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
        system = [{"type": "text", "text": "Be brief."}]
        calls = [
            {
                "custom_id": f"request-{n}",
                "params": {
                    "model": MODEL,
                    "max_tokens": 50,
                    "messages": [item for item in m if item["role"] != "system"],
                    **({"system": system} if m is QUESTION else {}),
                },
            }
            for n, m in enumerate(ASKED)
            if not str(m[-1]["content"]).startswith(("refuse", "null"))
        ]
        made = claude.messages.batches.create(requests=calls)
        (folder / "anthropic-batch-requests.json").write_text(json.dumps({"requests": calls}, indent=1) + "\n")
        lines = [result.to_json(indent=None) + "\n" for result in claude.messages.batches.results(made.id)]
        (folder / "anthropic-batch-results.jsonl").write_text("".join(lines))


main(Path(sys.argv[1]))
