"""Data of the demo: installed Python distributions as contributors, their source files as training data."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from credit.errors import InputError

DISTRIBUTIONS = ("torch", "transformers", "sqlalchemy", "polars", "rich", "click", "jinja2")
"""Distributions that credit depends on, installed wherever it runs. Each has one package of the same name."""

OWN = "credit"
"""The house's own data in the demo."""

KILOBYTES = 100
"""Text of each distribution, if nobody says otherwise; it ends with a whole file."""

_HELD_BACK = 4
_COLLECTIONS = 3
_FILE_BYTES = (1_500, 40_000)


@dataclass(frozen=True, slots=True)
class Contributor:
    """A contributing distribution: its key, and facts from its metadata."""

    key: str
    name: str
    version: str
    authors: str
    license: str
    kind: str


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A source file; `id` is its path below the package's parent."""

    id: str
    provider: str
    collection: str
    text: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """Files to train on, and files held back for prompts."""

    contributors: tuple[Contributor, ...]
    train: tuple[SourceFile, ...]
    held_back: tuple[SourceFile, ...]


def collect(seed: int, kilobytes: int = KILOBYTES, *, keys: Sequence[str] = (*DISTRIBUTIONS, OWN)) -> Corpus:
    """Select `kilobytes` of source text of each distribution, or a little more; equal seed and versions, equal text."""
    contributors, train, held_back = [], [], []
    for key in keys:
        contributor = _contributor(key)
        chosen = _choose(contributor, kilobytes, random.Random(f"{seed}/{key}"))  # noqa: S311  # a selection, not a secret
        contributors.append(contributor)
        held_back.extend(chosen[:_HELD_BACK])
        train.extend(_name_rare_collections_other(chosen[_HELD_BACK:]))
    return Corpus(tuple(contributors), tuple(train), tuple(held_back))


def _contributor(key: str) -> Contributor:
    try:
        meta: Any = importlib.metadata.metadata(key)  # an email.message.Message, of which typeshed shows less
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(f"the demo draws on the distribution {key}, which is not installed") from error
    authors = meta.get("Author") or meta.get("Author-email") or meta.get("Maintainer-email") or "unknown"
    terms = meta.get("License-Expression") or _license_classifier(meta.get_all("Classifier")) or meta.get("License")
    return Contributor(
        key=key,
        name=meta["Name"],
        version=meta["Version"],
        authors=re.sub(r"\s*<[^>]*>", "", authors.split("\n")[0])[:60],
        license=(terms or "unknown").split("\n")[0][:40],
        kind="house" if key == OWN else "provider",
    )


def _license_classifier(classifiers: list[str] | None) -> str | None:
    named = [c.rsplit("::", 1)[-1].strip() for c in classifiers or [] if c.startswith("License ::")]
    return named[0] if named else None


def _choose(contributor: Contributor, kilobytes: int, rng: random.Random) -> list[SourceFile]:
    root = _package_folder(contributor.key)
    low, high = _FILE_BYTES
    paths = sorted(
        path
        for path in root.rglob("*.py")
        if low <= path.stat().st_size <= high and not {"test", "tests", "testing"} & set(path.parts)
    )
    rng.shuffle(paths)
    chosen: list[SourceFile] = []
    size = 0
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="strict")
        inside = path.relative_to(root)
        collection = inside.parts[0].removesuffix(".py").strip("_") or "core"
        chosen.append(SourceFile(f"{contributor.key}/{inside.as_posix()}", contributor.key, collection, text))
        size += len(text) if len(chosen) > _HELD_BACK else 0
        if size >= 1000 * kilobytes:
            break
    if len(chosen) <= _HELD_BACK:
        raise InputError(f"the installation of {contributor.key} holds too few source files for the demo")
    return chosen


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # finds the folder without importing a top-level package
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the package {package} is not installed as source files; the demo reads them")
    return Path(next(iter(spec.submodule_search_locations)))


def _name_rare_collections_other(files: list[SourceFile]) -> list[SourceFile]:
    """Keep the collections with the most text and call all others `other`."""
    sizes: Counter[str] = Counter()
    for file in files:
        sizes[file.collection] += len(file.text)
    kept = {name for name, _ in sizes.most_common(_COLLECTIONS)}
    return [file if file.collection in kept else replace(file, collection="other") for file in files]
