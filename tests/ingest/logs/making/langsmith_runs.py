"""Runs of LangSmith, as its client has them: python langsmith_runs.py FOLDER.

LangSmith's server does not run here. provider.py keeps what the client posts of each run, and a `Run` of the client is
made of that, as `list_runs` makes it of an answer. The export in Parquet has the columns of its documentation,
structures as JSON texts. Left out is what the client says of this machine.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from datetime import datetime
from email import message_from_bytes
from pathlib import Path
from uuid import UUID

import openai
import pandas as pd
from langsmith import Client, traceable
from langsmith.schemas import Run
from langsmith.wrappers import wrap_openai
from provider import MODEL, ODD, PARTS, QUESTION, posted, provider


def _call(url: str) -> None:
    from langchain_core.tracers.langchain import wait_for_all_tracers
    from langchain_openai import ChatOpenAI

    plain = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    client = wrap_openai(plain)

    @traceable
    def answer_a_customer(question):
        return client.chat.completions.create(model=MODEL, messages=question).choices[0].message.content

    answer_a_customer(QUESTION)
    client.chat.completions.create(model=MODEL, messages=PARTS, n=2)
    list(client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))
    for messages in ODD:
        with suppress(openai.BadRequestError):
            client.chat.completions.create(model=MODEL, messages=messages)
    client.responses.create(model=MODEL, input="How lay the harbour?", instructions="Be brief.")
    chain = ChatOpenAI(model=MODEL, base_url=f"{url}/v1", api_key="none", max_retries=0)
    chain.invoke(QUESTION)
    chain.invoke("tool, please")
    list(chain.stream(QUESTION))
    wait_for_all_tracers()


def _parts() -> dict[str, dict]:
    """Return the fields of each run, put together from the parts that were posted of it."""
    runs: dict[str, dict] = {}
    for _, body in posted:
        border = body[2 : body.index(b"\r\n")]
        form = message_from_bytes(b"Content-Type: multipart/form-data; boundary=" + border + b"\r\n\r\n" + body)
        for part in form.get_payload() if form.is_multipart() else []:
            name = part.get_param("name", header="content-disposition")
            kind, run, *field = name.split(".")
            value = json.loads(part.get_payload(decode=True))
            if kind in ("post", "patch"):
                runs.setdefault(run, {}).update({field[0]: value} if field else value)
    return runs


def main() -> None:
    folder = Path(sys.argv[1])
    with provider() as url:
        os.environ |= {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": "none", "LANGSMITH_ENDPOINT": url}
        _call(url)
        Client().flush()
        from langsmith.run_trees import get_cached_client

        get_cached_client().flush()
    listed = sorted(_parts().values(), key=lambda run: run["dotted_order"])
    runs = []
    for fields in listed:
        extra = fields.get("extra", {})
        extra.pop("runtime", None)
        extra["metadata"] = {name: value for name, value in extra["metadata"].items() if name.islower()}
        if fields.get("error"):
            fields["error"] = fields["error"].partition("Traceback")[0]
        status = "error" if fields.get("error") else "success"
        runs.append(Run(**{"status": status, "session_id": UUID(int=1), **fields}))
    (folder / "langsmith.jsonl").write_text("".join(run.model_dump_json() + "\n" for run in runs))
    rows = [_exported(json.loads(run.model_dump_json())) for run in runs]
    pd.DataFrame(rows).to_parquet(folder / "langsmith.parquet")


def _exported(run: dict) -> dict:
    """Return a run as a row of a bulk export."""
    texts = {name: json.dumps(run.get(name)) for name in ("inputs", "outputs", "extra", "events")}
    ids = {name: run[name] for name in ("id", "trace_id", "parent_run_id", "session_id", "dotted_order")}
    plain = {name: run.get(name) for name in ("name", "run_type", "status", "error")}
    times = {name: datetime.fromisoformat(run[name]) for name in ("start_time", "end_time") if run.get(name)}
    return {**ids, **plain, **times, **texts, "is_root": run.get("parent_run_id") is None, "tags": []}


main()
