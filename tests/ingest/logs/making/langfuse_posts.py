"""Observations of calls by Langfuse's OpenAI client: python langfuse_posts.py FOLDER.

Langfuse's server does not run here: ids, times, types, input, output and model are those that its SDK posts; the names
of fields are those of the SDK's ObservationV2, which checks them, and of the reference of exports.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from provider import MODEL, ODD, PARTS, QUESTION, posted, provider


def main() -> None:
    from google.protobuf.json_format import MessageToJson
    from langfuse.api.core.pydantic_utilities import parse_obj_as
    from langfuse.api.observations.types import ObservationsV2Response
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with provider() as url:
        os.environ |= {"LANGFUSE_PUBLIC_KEY": "pk-lf-0", "LANGFUSE_SECRET_KEY": "sk-lf-0", "LANGFUSE_HOST": url}
        from langfuse import get_client, observe
        from langfuse.openai import openai

        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

        @observe()
        def answer_a_customer():
            return client.chat.completions.create(model=MODEL, messages=QUESTION).choices[0].message.content

        answer_a_customer()
        client.chat.completions.create(model=MODEL, messages=PARTS, n=2)
        for _ in client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True):
            pass
        for messages in ODD:
            with suppress(openai.BadRequestError):
                client.chat.completions.create(model=MODEL, messages=messages)
        get_client().flush()
    page, exported, documents = [], [], []
    for _, body in posted:
        request = ExportTraceServiceRequest()
        request.ParseFromString(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        documents.append(MessageToJson(request))
        for resource in request.resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                said = {
                    item.key.removeprefix("langfuse.observation."): item.value.string_value for item in span.attributes
                }
                page.append(_observation(span, said))
                exported.append(_exported(span, said))
    folder = Path(sys.argv[1])
    parse_obj_as(ObservationsV2Response, {"data": page, "meta": {}})
    (folder / "langfuse-page.json").write_text(json.dumps({"data": page, "meta": {}}, indent=1) + "\n")
    (folder / "langfuse-otlp.json").write_text("\n".join(documents) + "\n")
    (folder / "langfuse-export.jsonl").write_text("".join(json.dumps(row) + "\n" for row in exported))


def _observation(span, said):
    """An observation as the API writes it: ObservationV2 of the SDK, input and output as the texts that were posted."""
    begun = datetime.fromtimestamp(span.start_time_unix_nano // 10**6 / 1000, UTC).isoformat(timespec="milliseconds")
    ids = {"id": span.span_id.hex(), "traceId": span.trace_id.hex(), "projectId": "p1"}
    ids["parentObservationId"] = span.parent_span_id.hex() or None
    core = {"type": said["type"].upper(), "startTime": begun.replace("+00:00", "Z"), "name": span.name}
    level = {"level": said.get("level", "DEFAULT"), "statusMessage": said.get("status_message")}
    return {
        **ids,
        **core,
        **level,
        "model": said.get("model.name"),
        "input": said["input"],
        "output": said.get("output"),
    }


def _exported(span, said):
    """The same as an export to blob storage writes it."""
    begun = datetime.fromtimestamp(span.start_time_unix_nano // 1000 / 10**6, UTC).replace(tzinfo=None)
    ids = {"id": span.span_id.hex(), "trace_id": span.trace_id.hex(), "project_id": "p1", "environment": "default"}
    ids["parent_observation_id"] = span.parent_span_id.hex() or None
    core = {"type": said["type"].upper(), "start_time": begun.isoformat(sep=" ", timespec="microseconds")}
    core |= {"name": span.name, "level": said.get("level", "DEFAULT"), "status_message": said.get("status_message")}
    named = {"provided_model_name": said.get("model.name")}
    return {**ids, **core, **named, "input": said["input"], "output": said.get("output")}


main()
