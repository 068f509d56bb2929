"""Attributes of spans and log records: OTLP's tagged values as plain ones, and flat names as nested fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from credit.ingest.json_documents import objects_in


def attributes_of(owner: Mapping[str, object]) -> dict[str, object]:
    """Return the attributes of a span, event or log record, as plain values.

    Raises:
        InputError: they are malformed.
    """
    return {str(item.get("key")): plain(item.get("value")) for item in objects_in(owner, "attributes")}


def plain(value: object) -> object:
    """Return a tagged value without its tags: "a" for `{"stringValue": "a"}`; lists and objects for structures.

    Raises:
        InputError: it is malformed.
    """
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((kind, content),) = value.items()
    if kind == "arrayValue":
        return [plain(item) for item in objects_in(content, "values")] if isinstance(content, dict) else None
    if kind == "kvlistValue":
        pairs = objects_in(content, "values") if isinstance(content, dict) else []
        return {str(pair.get("key")): plain(pair.get("value")) for pair in pairs}
    return content


def nested(flat: Mapping[str, object], prefix: str) -> object:
    """Return the fields under a flat name: `a.0.b` and `a.1.b` under `a` are a list of two objects with `b`.

    A field that is there as a structure, whole, is returned as it is, with flat names inside it nested.

    Returns:
        Lists, objects and values; None: there is nothing under the name.
    """
    if flat.get(prefix) is not None:
        return _deep(flat[prefix])
    tree: dict[str, object] = {}
    for name, value in flat.items():
        if name.startswith(prefix + "."):
            _put(tree, name[len(prefix) + 1 :].split("."), value)
    return _listed(tree) if tree else None


def _put(tree: dict[str, object], path: list[str], value: object) -> None:
    for step in path[:-1]:
        below = tree.setdefault(step, {})
        if not isinstance(below, dict):
            tree[step] = below = {}
        tree = below
    if not isinstance(tree.get(path[-1]), dict):
        tree[path[-1]] = _deep(value)


def _deep(value: object) -> object:
    if isinstance(value, list):
        return [_deep(item) for item in value]
    if not isinstance(value, dict):
        return value
    tree: dict[str, object] = {}
    for name, inner in value.items():
        _put(tree, str(name).split("."), inner)
    return _listed(tree)


def _listed(tree: object) -> object:
    """Return objects with numbers for names as lists."""
    if not isinstance(tree, dict):
        return tree
    inner = {name: _listed(value) for name, value in tree.items()}
    if inner and all(name.isascii() and name.isdigit() and len(name) < 6 for name in inner):
        return [inner[name] for name in sorted(inner, key=int)]
    return inner


def spans_of(document: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Yield the spans of an OTLP document.

    Raises:
        InputError: it is malformed.
    """
    return _in_scopes(document, "resourceSpans", "scopeSpans", "spans")


def log_records_of(document: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Yield the log records of an OTLP document.

    Raises:
        InputError: it is malformed.
    """
    return _in_scopes(document, "resourceLogs", "scopeLogs", "logRecords")


def _in_scopes(document: Mapping[str, object], resources: str, scopes: str, items: str) -> Iterator[dict[str, object]]:
    for resource in objects_in(document, resources):
        for scope in objects_in(resource, scopes):
            yield from objects_in(scope, items)
