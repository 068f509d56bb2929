"""Calls of W&B Weave around OpenAI's client, as its service returns them: python weave_calls.py weave.jsonl.

The service of W&B does not run here; weave 0.51 has one on SQLite, and answers its query for an export of calls. Left
out are the machine's name and versions, and stack traces.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import openai
import weave
from provider import MODEL, ODD, PARTS, QUESTION, provider
from weave.integrations.openai.openai_sdk import get_openai_patcher
from weave.trace import weave_client
from weave.trace.context import weave_client_context
from weave.trace_server import external_to_internal_trace_server_adapter as adapter
from weave.trace_server import sqlite_trace_server
from weave.trace_server import trace_server_interface as service


class Ids(adapter.IdConverter):
    """Names of projects and people inside the service."""

    def ext_to_int_project_id(self, project_id):
        return base64.b64encode(project_id.encode()).decode()

    def int_to_ext_project_id(self, project_id):
        return base64.b64decode(project_id).decode()

    def ext_to_int_run_id(self, run_id):
        return run_id

    int_to_ext_run_id = ext_to_int_user_id = int_to_ext_user_id = ext_to_int_run_id


def main() -> None:
    stored = sqlite_trace_server.SqliteTraceServer(f"{tempfile.mkdtemp()}/weave.db")
    stored.setup_tables()
    server = adapter.ExternalTraceServer(stored, Ids())
    tracer = weave_client.WeaveClient("shop", "answers", server, ensure_project_exists=False)
    weave_client_context.set_weave_client_global(tracer)
    get_openai_patcher().attempt_patch()
    with provider() as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

        @weave.op
        def answer_a_customer(question):
            return client.chat.completions.create(model=MODEL, messages=question).choices[0].message.content

        answer_a_customer(QUESTION)
        tracer.flush()  # the service on SQLite drops what is written at once
        client.chat.completions.create(model=MODEL, messages=PARTS, n=2)
        tracer.flush()
        list(client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))
        for messages in ODD:
            tracer.flush()
            with suppress(openai.BadRequestError):
                client.chat.completions.create(model=MODEL, messages=messages)
    tracer.finish()
    asked = service.CallsQueryReq(project_id="shop/answers")
    calls = [call.model_dump(mode="json") for call in server.calls_query_stream(asked)]
    for call in calls:
        if isinstance(call["attributes"].get("weave"), dict):
            about = call["attributes"]["weave"]
            call["attributes"]["weave"] = {name: about[name] for name in ("client_version", "kind") if name in about}
        call["exception"] = call["exception"] and "openai.BadRequestError"
        call["inputs"].pop("self", None)
    Path(sys.argv[1]).write_text("".join(json.dumps(call) + "\n" for call in calls))


main()
