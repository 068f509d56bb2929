"""Freeze the tables of `credit.ledger.schema` as the SQL of the first revision: `python migrations/freeze.py`.

Only until release 0.2.0. From then on `0001_ledger.sql` never changes: a change of a table is a revision of its own,
with ALTER statements written by hand and a note of why.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from credit.ledger.schema import metadata

TARGET = Path(__file__).with_name("versions") / "0001_ledger.sql"


def frozen_sql() -> str:
    """Return the statements that create every table and its indexes, in SQLite's words, one after the other."""
    statements: list[str] = []
    for table in metadata.sorted_tables:
        statements.append(_one_column_a_line(CreateTable(table)))
        statements += [
            _one_column_a_line(CreateIndex(index)) for index in sorted(table.indexes, key=lambda item: str(item.name))
        ]
    return "".join(f"{statement};\n" for statement in statements)


def _one_column_a_line(element: CreateTable | CreateIndex) -> str:
    lines = [line.strip() for line in str(element.compile(dialect=dialect())).splitlines() if line.strip()]
    if len(lines) == 1:
        return lines[0]
    end = lines.index(")")
    return "\n".join([lines[0], *(f"  {line}" for line in lines[1:end]), " ".join(lines[end:])])


if __name__ == "__main__":
    TARGET.write_text(frozen_sql(), "utf-8")
