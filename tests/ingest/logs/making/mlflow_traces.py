"""MLflow traces of calls by OpenAI's client, a list of `Trace.to_dict()`: python mlflow_traces.py mlflow.json.

Left out are paths, the user's name and stack traces.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import mlflow
import openai
from mlflow.entities import SpanType
from provider import MODEL, ODD, PARTS, QUESTION, provider


def main() -> None:
    folder, out = tempfile.mkdtemp(), Path(sys.argv[1]).absolute()
    os.chdir(folder)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.openai.autolog()
    with provider() as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

        @mlflow.trace(span_type=SpanType.CHAIN)
        def answer_a_customer(question):
            answer = client.chat.completions.create(model=MODEL, messages=question)
            return answer.choices[0].message.content

        answer_a_customer(QUESTION)
        client.chat.completions.create(model=MODEL, messages=PARTS, n=2)
        for _ in client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True):
            pass
        for messages in ODD:
            with suppress(openai.BadRequestError):
                client.chat.completions.create(model=MODEL, messages=messages)
    mlflow.flush_trace_async_logging()
    traces = [trace.to_dict() for trace in mlflow.search_traces(return_type="list", order_by=["timestamp_ms ASC"])]
    for trace in traces:
        for owner in (trace["info"]["tags"], trace["info"]["trace_metadata"]):
            for name in ("mlflow.artifactLocation", "mlflow.source.name", "mlflow.user"):
                owner.pop(name, None)
        for span in trace["data"]["spans"]:
            for event in span["events"]:
                event["attributes"].pop("exception.stacktrace", None)
    out.write_text(json.dumps(traces))


main()
