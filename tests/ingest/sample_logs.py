"""Logs that the libraries of others wrote (tests/ingest/logs), as files and as records."""

from __future__ import annotations

from pathlib import Path

from credit.ingest.json_documents import parse_json

LOGS = Path(__file__).parent / "logs"
_REQUESTS = ("anthropic-batch-requests.json", "openai-batch-input.jsonl")
NAMES = tuple(sorted(path.name for path in LOGS.glob("*.json*") if path.name not in _REQUESTS))


def asked(name: str) -> list[Path]:
    """The files with the requests of a batch, for its results."""
    batch, mark, _ = name.partition("-batch")
    return sorted(LOGS.glob(f"{batch}-batch*")) if mark else []


def records(name: str) -> list[dict[str, object]]:
    """The records of a log."""
    text = (LOGS / name).read_text()
    found = parse_json(text) if name.endswith(".json") else [parse_json(line) for line in text.splitlines()]
    return found if isinstance(found, list) else [found]
