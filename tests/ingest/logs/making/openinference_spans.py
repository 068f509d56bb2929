"""OpenInference's spans of chat completions, in OTLP's JSON: python openinference_spans.py openinference.jsonl.

The events of spans, which hold stack traces, are left out.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

import openai
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from provider import MODEL, ODD, PARTS, QUESTION, provider


def main() -> None:
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(FileSpanExporter(sys.argv[1])))
    OpenAIInstrumentor().instrument(tracer_provider=tracing)
    with provider() as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        client.chat.completions.create(model=MODEL, messages=QUESTION)
        client.chat.completions.create(model=MODEL, messages=PARTS, n=2)
        for _ in client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True):
            pass
        for messages in ODD:
            with suppress(openai.BadRequestError):
                client.chat.completions.create(model=MODEL, messages=messages)
    tracing.shutdown()
    log = Path(sys.argv[1])
    documents = [json.loads(line) for line in log.read_text().splitlines()]
    for document in documents:
        for resource in document["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    span.pop("events", None)
    log.write_text("".join(json.dumps(document) + "\n" for document in documents))


main()
