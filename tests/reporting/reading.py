"""Reading what reports are made of: folders, CSV files and pages."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


class Page(HTMLParser):
    """A page as its readers have it.

    Attributes:
        tags: of all elements.
        attributes: of all elements, with their values.
        text: all of it.
        seen: every piece of text but blanks.
        heard: the pieces that a screen reader is given.
        labels: names that a screen reader says of a chart or region.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.seen: list[str] = []
        self.heard: list[str] = []
        self._hidden: list[str] = []
        self.feed(html)

    @property
    def labels(self) -> list[str]:
        return [value for name, value in self.attributes if name == "aria-label"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if self._hidden or ("aria-hidden", "true") in attrs:
            self._hidden.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        while self._hidden and self._hidden.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data
        if piece := data.strip():
            self.seen.append(piece)
            if not self._hidden:
                self.heard.append(piece)
