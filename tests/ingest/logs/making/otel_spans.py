"""OpenTelemetry spans of chat completions, by the SDK's OTLP JSON file exporter: python otel_spans.py otel.jsonl.

Which conventions are followed depends on the instrumentation that is installed beside it. The events of spans, which
hold stack traces, are left out.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "span_only"

import openai
from opentelemetry import trace
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from provider import MODEL, ODD, PARTS, QUESTION, provider


def instrument() -> None:
    for path in (
        "opentelemetry.instrumentation.genai.openai",
        "opentelemetry.instrumentation.openai_v2",
        "opentelemetry.instrumentation.openai",
    ):
        with suppress(ImportError):
            __import__(path)
            sys.modules[path].OpenAIInstrumentor().instrument()
            return
    raise SystemExit("install an instrumentation of openai")


def main() -> None:
    tracing = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    tracing.add_span_processor(BatchSpanProcessor(FileSpanExporter(sys.argv[1])))
    trace.set_tracer_provider(tracing)
    instrument()
    tracer = trace.get_tracer("shop")
    with provider() as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        with tracer.start_as_current_span("answer a customer"):
            client.chat.completions.create(model=MODEL, messages=QUESTION)
        client.chat.completions.create(model=MODEL, messages=PARTS, n=2)
        for _ in client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True):
            pass
        tracing.force_flush()
        for messages in ODD:
            with suppress(openai.BadRequestError):
                client.chat.completions.create(model=MODEL, messages=messages)
    tracing.shutdown()
    log = Path(sys.argv[1])
    documents = [json.loads(line) for line in log.read_text().splitlines()]
    for span in (
        span
        for document in documents
        for resource in document["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ):
        span.pop("events", None)
    log.write_text("".join(json.dumps(document) + "\n" for document in documents))


main()
