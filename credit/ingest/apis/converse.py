"""Bedrock's Converse, one API for all of its models. Responses hold neither id nor time nor model.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

from collections.abc import Sequence

from credit.errors import InputError
from credit.ingest.calls import Asked
from credit.ingest.conversations import answer_of, asked_of_request
from credit.ingest.exchanges import Exchange, Record
from credit.ingest.fields import FieldError
from credit.ingest.json_documents import objects_in

SOURCE = "bedrock"
NAME = "Bedrock Converse"
RECOGNISED_BY = "output with a message"
FIELDS = frozenset({"output", "stopReason", "usage", "metrics", "messages", "system", "toolConfig", "modelId"})


def matches(response: Record) -> bool:
    """Return True for a response."""
    output = response.get("output")
    return isinstance(output, dict) and isinstance(output.get("message"), dict) and "stopReason" in response


def read(request: Record, response: Record) -> Sequence[Exchange]:
    """Return the exchange.

    Raises:
        InputError: it cannot be used.
    """
    output = response["output"]
    message = output.get("message") if isinstance(output, dict) else None
    model = request.get("modelId")
    return [Exchange({0: answer_of(message)}, _asked(request), model=model if isinstance(model, str) else "")]


def _asked(request: Record) -> Asked:
    if request.get("messages") is None:
        raise InputError("the request's `messages` are missing; log the request beside the response")
    config = request.get("toolConfig")
    tools = [item.get("toolSpec") for item in objects_in(config, "tools")] if isinstance(config, dict) else []
    said = [
        {"name": tool.get("name"), "description": tool.get("description"), "parameters": _schema(tool)}
        for tool in tools
        if isinstance(tool, dict)
    ]
    try:
        return asked_of_request({"messages": request["messages"], "system": request.get("system"), "tools": said})
    except FieldError as error:
        raise InputError(str(error)) from error


def _schema(tool: Record) -> object:
    schema = tool.get("inputSchema")
    return schema.get("json") if isinstance(schema, dict) else None


def joined(pieces: Sequence[Record]) -> Record:
    """Build the response from a stream's events.

    Raises:
        InputError: the stream ends before its answer does.
    """
    if len(pieces) == 1:
        return pieces[0]
    raise InputError("the events of a Converse stream cannot be put together; log the whole response")
