"""MLflow traces of calls by OpenAI's client: python mlflow_traces.py FOLDER NAME.

NAME.json is a list of `Trace.to_dict()`, NAME.parquet is the DataFrame of `search_traces`, and
NAME-artifact.jsonl the files `traces.json` that MLflow stores as artifacts. Left out are paths, the user's name and
stack traces.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import mlflow
import openai
import pandas as pd
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
    with suppress(AttributeError):  # of version 3
        mlflow.flush_trace_async_logging()
    order = ["timestamp_ms ASC"]
    found = mlflow.MlflowClient().search_traces(["0"], order_by=order)
    _write(out, sys.argv[2], [_plain(trace.to_dict()) for trace in found])
    _write_frame(out / f"{sys.argv[2]}.parquet", mlflow.search_traces(["0"], order_by=order))
    artifacts = [trace.info.tags.get("mlflow.artifactLocation", "") for trace in found]
    files = [Path(place.removeprefix("file://"), "traces.json") for place in artifacts]
    texts = [json.dumps(json.loads(file.read_text())) + "\n" for file in files if file.is_file()]
    if texts:
        (out / f"{sys.argv[2]}-artifact.jsonl").write_text("".join(map(_without_stacks, texts)))


def _write(out: Path, name: str, traces: list[dict]) -> None:
    (out / f"{name}.json").write_text(json.dumps(traces))


def _plain(trace: dict) -> dict:
    """Return a trace without what it says of this machine."""
    info = trace["info"]
    for owner in (info["tags"], info.get("trace_metadata", info.get("request_metadata"))):
        for name in ("mlflow.artifactLocation", "mlflow.source.name", "mlflow.user"):
            owner.pop(name, None)
    return json.loads(_without_stacks(json.dumps(trace)))


def _without_stacks(text: str) -> str:
    return re.sub(r'("exception.stacktrace": )"(?:[^"\\]|\\.)*"', r'\1""', text)


def _write_frame(path: Path, frame: pd.DataFrame) -> None:
    for column in frame.columns:
        if column in ("tags", "trace_metadata", "request_metadata"):
            frame[column] = "{}"
        elif column == "trace":
            frame[column] = [json.dumps(_plain(json.loads(_text(trace)))) for trace in frame[column]]
        elif any(isinstance(value, list | dict) for value in frame[column]):
            frame[column] = [_without_stacks(_text(value)) for value in frame[column]]
    frame.to_parquet(path)


def _text(value: object) -> str:
    """Return the JSON of a value: MLflow 2 has objects of its own in the columns trace and spans."""
    if isinstance(value, str):
        return value
    if hasattr(value, "to_json"):
        return value.to_json()
    return json.dumps(value, default=lambda item: item.to_dict() if hasattr(item, "to_dict") else str(item))


main()
