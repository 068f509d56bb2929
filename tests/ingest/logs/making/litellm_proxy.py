"""LiteLLM's proxy, its payloads and its spend logs: python litellm_proxy.py litellm-proxy.jsonl litellm-spend.jsonl.

The proxy runs, without a database. A custom callback gets each payload, and makes the row that the proxy would store of
the call (`store_prompts_in_spend_logs`) by the proxy's own function. Left out are what LiteLLM says of its own cost
tables, of keys, of this machine and of its stack.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.request import Request, urlopen

from litellm.integrations.custom_logger import CustomLogger
from provider import PARTS, QUESTION, provider

_PRIVATE = ("response_cost_failure_debug_info", "model_map_information", "cost_breakdown", "requester_ip_address")


class ToFiles(CustomLogger):
    """Writes every payload, and the row of the spend logs for it, as a line each."""

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self._write(kwargs, response_obj, start_time, end_time)

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self._write(kwargs, response_obj, start_time, end_time)

    def _write(self, kwargs, response_obj, start_time, end_time):
        from litellm.proxy.spend_tracking.spend_tracking_utils import get_logging_payload

        payload = dict(kwargs["standard_logging_object"])
        row = dict(get_logging_payload(kwargs, response_obj, start_time, end_time))
        for name in _PRIVATE:
            payload.pop(name, None)
        payload["error_information"] = {**(payload["error_information"] or {}), "traceback": ""}
        payload["metadata"], row["metadata"], payload["hidden_params"] = {}, "{}", {}
        payload["model_id"] = row["model_id"] = ""
        asked = json.loads(row["proxy_server_request"])
        left = {name: value for name, value in asked.items() if not name.endswith("metadata")}
        row["proxy_server_request"] = json.dumps(left)
        for name, found in ((sys.argv[1], payload), (sys.argv[2], row)):
            with Path(name).open("a") as file:
                file.write(json.dumps(found, default=str) + "\n")


def _post(url: str, body: dict, **headers: str) -> None:
    asked = {"content-type": "application/json", "authorization": "Bearer sk-0f9e1c", **headers}
    with urlopen(Request(url, json.dumps(body).encode(), asked), timeout=60) as answer:
        answer.read()


def _config(url: str) -> str:
    common = {"api_key": "none", "max_retries": 0}
    models = [
        ("my-llm", {"model": "openai/my-llm", "api_base": f"{url}/v1", **common}),
        ("my-claude", {"model": "anthropic/my-llm", "api_base": url, **common}),
    ]
    return json.dumps({
        "model_list": [{"model_name": name, "litellm_params": params} for name, params in models],
        "litellm_settings": {"callbacks": ["litellm_proxy.to_files"], "num_retries": 0},
        "general_settings": {
            "master_key": "sk-0f9e1c",
            "store_prompts_in_spend_logs": True,
            "pass_through_endpoints": [
                {"path": "/straight", "target": f"{url}/v1/chat/completions", "headers": {"authorization": "Bearer x"}}
            ],
        },
    })  # fmt: skip


def main() -> None:
    import litellm_proxy
    import uvicorn

    litellm_proxy.to_files = ToFiles()
    folder = tempfile.mkdtemp()
    with provider() as url:
        config = Path(folder, "config.yaml")
        config.write_text(_config(url))
        os.environ |= {"CONFIG_FILE_PATH": str(config), "ANTHROPIC_API_BASE": url, "ANTHROPIC_API_KEY": "none"}
        from litellm.proxy.proxy_server import app

        server = uvicorn.Server(uvicorn.Config(app, port=4179, log_level="warning"))
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started:
            time.sleep(0.2)
        here = "http://127.0.0.1:4179"
        chat, claude = {"model": "my-llm"}, {"model": "my-claude", "max_tokens": 50}
        _post(f"{here}/v1/chat/completions", {**chat, "messages": QUESTION, "user": "visitor-7"})
        _post(f"{here}/v1/chat/completions", {**chat, "messages": PARTS, "n": 2})
        _post(f"{here}/v1/chat/completions", {**chat, "messages": QUESTION, "stream": True})
        asked = {"messages": QUESTION[1:], "system": "Be brief."}
        _post(f"{here}/v1/messages", {**claude, **asked})
        _post(f"{here}/v1/messages", {**claude, "messages": [{"role": "user", "content": "tool, please"}]})
        _post(f"{here}/v1/responses", {**chat, "input": "How lay the harbour?", "instructions": "Be brief."})
        _post(f"{here}/v1/responses", {**chat, "input": QUESTION})
        _post(f"{here}/v1/responses", {**chat, "input": "tool, please"})
        _post(f"{here}/straight", {"model": "my-llm", "messages": QUESTION})
        version = {"anthropic-version": "2023-06-01"}
        _post(f"{here}/anthropic/v1/messages", {**claude, "model": "my-llm", **asked}, **version)
        time.sleep(8)


if __name__ == "__main__":
    main()
