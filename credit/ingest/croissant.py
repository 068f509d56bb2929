"""Croissant: metadata that lies beside training data, with its creators, licences and conditions of use.

A file `croissant.json` describes the data set in its folder and below, in JSON-LD with the words of schema.org.
https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from credit.errors import InputError
from credit.ingest.json_documents import parse_json_object

FILES = ("croissant.json", "croissant.jsonld")
PROHIBITION = "prohibition"
"""Name of a declaration of what a policy in ODRL forbids."""

_PREFIXES = ("", "sc:", "schema:", "https://schema.org/", "http://schema.org/")
_NAMES = ("url", "@id", "name", "termCode", "text")
"""Fields by which a creator, licence or condition is called, the most exact first."""


@dataclass(frozen=True, slots=True)
class Croissant:
    """Metadata of a data set.

    Attributes:
        path: the file.
        creators: of each creator, the URL and the name, as far as they are given.
        declared: declarations about its use, each as name and text: `license`, `usage` and `prohibition`.
    """

    path: Path
    creators: tuple[tuple[str, ...], ...]
    declared: tuple[tuple[str, str], ...]


class Croissants:
    """Metadata of the folders that training data lie in; each file is read once."""

    def __init__(self) -> None:
        self._found: dict[Path, Croissant | None] = {}

    def of(self, path: Path, depth: int) -> Croissant | None:
        """Return the metadata that hold for a file: those in its folder, or else in the nearest of `depth` above.

        Raises:
            InputError: there are some that cannot be read.
        """
        folders = [path, *path.parents] if path.is_dir() else list(path.parents)
        for folder in folders[: depth + 1 + path.is_dir()]:
            if folder not in self._found:
                file = next((folder / name for name in FILES if (folder / name).is_file()), None)
                self._found[folder] = read_croissant(file) if file else None
            if found := self._found[folder]:
                return found
        return None


def read_croissant(path: Path) -> Croissant:
    """Read the metadata of a data set.

    Raises:
        InputError: the file is no JSON object, or describes no data set.
    """
    try:
        whole = parse_json_object(path.read_bytes())
    except (InputError, OSError) as error:
        raise InputError(f"{path}: {error}; mend it, or take it away") from error
    graph = whole.get("@graph")
    nodes = [node for node in graph if isinstance(node, dict)] if isinstance(graph, list) else [whole]
    data_set = next((node for node in nodes if "Dataset" in str(node.get("@type"))), None)
    if data_set is None:
        raise InputError(f"{path}: describes no data set (`@type` Dataset); mend it, or take it away")
    creators = tuple(tuple(_called(item)) for item in _items(_get(data_set, "creator")))
    usage = _get(data_set, "usageInfo")
    declared = [("license", name) for name in _all_called(_get(data_set, "license"))]
    declared += [("usage", name) for item in _items(usage) for name in _called(item)]
    declared += [(PROHIBITION, action) for action in _prohibited(usage)]
    return Croissant(path, tuple(names for names in creators if names), tuple(declared))


def _get(node: Mapping[str, object], name: str) -> object:
    return next((node[prefix + name] for prefix in _PREFIXES if prefix + name in node), None)


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _called(item: object) -> Iterator[str]:
    """Yield the names of something, the most exact first."""
    if isinstance(item, str) and item.strip():
        yield item
    elif isinstance(item, dict):
        for name in _NAMES:
            found = _get(item, name)
            if isinstance(found, str) and found.strip():
                yield found


def _all_called(value: object) -> Iterator[str]:
    for item in _items(value):
        if name := next(_called(item), ""):
            yield name


def _prohibited(value: object) -> Iterator[str]:
    """Yield the actions that policies in ODRL prohibit."""
    for policy in _items(value):
        for rule in _under(policy, PROHIBITION):
            for action in _under(rule, "action"):
                yield from _all_called(action)


def _under(node: object, name: str) -> Iterator[object]:
    """Yield the values of a property in whatever namespace."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if key.rpartition(":")[2] == name:
            yield from _items(value)
