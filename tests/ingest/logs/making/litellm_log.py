"""LiteLLM's standard logging payloads, as a custom callback gets them: python litellm_log.py litellm.jsonl.

Left out are what LiteLLM says of its own cost tables and of its stack.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path

import litellm
from litellm.integrations.custom_logger import CustomLogger
from provider import ODD, PARTS, QUESTION, provider


class ToFile(CustomLogger):
    """Writes every payload as one line."""

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self._write(kwargs)

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self._write(kwargs)

    def _write(self, kwargs):
        payload = dict(kwargs["standard_logging_object"])
        payload.pop("response_cost_failure_debug_info", None)
        payload["error_information"] = {**payload["error_information"], "traceback": ""}
        with Path(sys.argv[1]).open("a") as file:
            file.write(json.dumps(payload, default=str) + "\n")


async def main() -> None:
    litellm.callbacks = [ToFile()]
    with provider() as url:
        call = {"model": "openai/my-llm", "api_base": f"{url}/v1", "api_key": "none", "max_retries": 0}
        await litellm.acompletion(messages=QUESTION, **call)
        await litellm.acompletion(messages=PARTS, n=2, **call)
        async for _ in await litellm.acompletion(messages=QUESTION, stream=True, **call):
            pass
        for messages in ODD:
            with suppress(litellm.BadRequestError):
                await litellm.acompletion(messages=messages, **call)
        await litellm.acompletion(
            model="anthropic/my-llm", api_base=url, api_key="none", messages=QUESTION, max_tokens=50
        )
        await litellm.atext_completion(prompt="How lay", mock_response="It", model="text-completion-openai/my-llm")
        await litellm.aembedding(model="openai/my-embedder", input=["a"], mock_response=[[0.1]])
        await asyncio.sleep(3)


asyncio.run(main())
