"""Aliases of models: names by which logs know a model that has an index under another name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase

from sqlalchemy import Connection, select

from credit.errors import LedgerError
from credit.ledger.indexes import model_id, models
from credit.ledger.schema import model, model_alias
from credit.ledger.seals import add_rows
from credit.ledger.sql import next_id
from credit.ledger.values import is_storable, utc_text


@dataclass(frozen=True, slots=True)
class ModelAlias:
    """A name in logs, or a pattern of names with `*`, and the model that it stands for."""

    pattern: str
    model: str


def add_alias(conn: Connection, pattern: str, name: str, *, now: datetime) -> bool:
    """Let a name in logs, or a pattern, stand for a model from now on. Return True if anything changed.

    Raises:
        LedgerError: the model has no index, or the pattern is the name of a model, or empty.
    """
    if not pattern.strip() or not is_storable(pattern):
        raise LedgerError("an alias needs a name, such as openai/my-llm, or a pattern, such as openai/*")
    number = model_id(conn, name)
    if pattern in models(conn):
        raise LedgerError(f"{pattern!r} is the name of a model with an index; an alias is another name")
    if next((item.model for item in aliases(conn) if item.pattern == pattern), None) == name:
        return False
    row = {"id": next_id(conn, model_alias), "pattern": pattern, "model_id": number, "created_at": utc_text(now)}
    add_rows(conn, model_alias, [row])
    return True


def aliases(conn: Connection) -> list[ModelAlias]:
    """Return the aliases in force: the newest of each pattern, names before patterns, the longest pattern first."""
    query = select(model_alias.c.pattern, model.c.name).join_from(model_alias, model).order_by(model_alias.c.id)
    found = {pattern: ModelAlias(pattern, name) for pattern, name in conn.execute(query)}
    return sorted(found.values(), key=lambda item: ("*" in item.pattern, -len(item.pattern), item.pattern))


class ModelNames:
    """Names of models in logs: those with an index, and their aliases."""

    def __init__(self, conn: Connection) -> None:
        self.ids = models(conn)
        self._aliases = aliases(conn)
        self._found: dict[str, str | None] = {}

    def model_of(self, name: str) -> str | None:
        """Return the name of the model with an index that a log's name stands for; None: there is none."""
        if name in self.ids:
            return name
        if name not in self._found:
            fitting = (item.model for item in self._aliases if fnmatchcase(name, item.pattern))
            self._found[name] = next(fitting, None)
        return self._found[name]

    def remedy(self, name: str) -> str:
        """Return what to do about a name that stands for no model."""
        known = ", ".join(sorted(self.ids)) or "none"
        near = get_close_matches(name.rpartition("/")[2], self.ids, n=1, cutoff=0.5)
        alias = f"credit models alias {name} {near[0]}" if near else f"credit models alias {name} MODEL"
        return f"model {name!r} has no index (known: {known}); if it is one of them: {alias}; if not: credit index"
