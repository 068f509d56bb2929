"""OpenTelemetry log events of chat completions, in OTLP's JSON: python otel_events.py FILE new|old.

`old` are the events for each message of the conventions before 1.37 (where the library imports), `new` one event
for each call.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

if sys.argv[2] == "new":
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "event_only"
    os.environ["OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT"] = "true"
else:
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "true"

import openai
from opentelemetry import _logs, trace
from opentelemetry.exporter.otlp.json.file._log_exporter import FileLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from provider import MODEL, ODD, PARTS, QUESTION, provider

if sys.argv[2] == "new":
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
else:
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor


def main() -> None:
    logging = LoggerProvider()
    logging.add_log_record_processor(SimpleLogRecordProcessor(FileLogExporter(sys.argv[1])))
    _logs.set_logger_provider(logging)
    trace.set_tracer_provider(TracerProvider())
    OpenAIInstrumentor().instrument()
    with provider() as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        client.chat.completions.create(model=MODEL, messages=QUESTION)
        client.chat.completions.create(model=MODEL, messages=PARTS, n=2)
        for _ in client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True):
            pass
        for messages in ODD:
            with suppress(openai.BadRequestError):
                client.chat.completions.create(model=MODEL, messages=messages)
    logging.shutdown()


main()
