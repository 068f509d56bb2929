"""Bedrock's Converse, one API for all of its models. Responses hold neither id nor time nor model.

A stream is a list of events, each an object of one field: `messageStart`, `contentBlockDelta`, ..., `messageStop`.
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
    """Return True for a response, and for the first event of a streamed one."""
    output = response.get("output")
    whole = isinstance(output, dict) and isinstance(output.get("message"), dict) and "stopReason" in response
    return whole or isinstance(response.get("messageStart"), dict)


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
    if len(pieces) == 1 and "messageStart" not in pieces[0]:
        return pieces[0]
    blocks: dict[int, dict[str, object]] = {}
    for event in pieces:
        for kind, inner in event.items():
            if kind == "messageStop" and isinstance(inner, dict):
                message = {"role": "assistant", "content": [block for _, block in sorted(blocks.items()) if block]}
                return {"output": {"message": message}, "stopReason": inner.get("stopReason")}
            if kind in ("contentBlockStart", "contentBlockDelta") and isinstance(inner, dict):
                index = inner.get("contentBlockIndex")
                block = blocks.setdefault(index if isinstance(index, int) else 0, {})
                _extend(block, inner.get("start", inner.get("delta")))
    raise InputError("the stream ends before its answer does; what the model wrote after that is not known")


def _extend(block: dict[str, object], delta: object) -> None:
    """Add a piece to a block of content: text, thoughts or a call of a tool, whose input comes as JSON in pieces."""
    if not isinstance(delta, dict):
        return
    if isinstance(delta.get("text"), str):
        block["text"] = f"{block.get('text') or ''}{delta['text']}"
    for name in ("reasoningContent", "toolUse"):
        piece, whole = delta.get(name), block.get(name)
        if isinstance(piece, dict):
            known = whole if isinstance(whole, dict) else {}
            texts = {key: f"{known.get(key) or ''}{piece[key]}" for key in ("text", "input") if key in piece}
            block[name] = {**known, **piece, **texts}
