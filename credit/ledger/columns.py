"""Kinds of columns that tables are made of, each with the check of its values."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, MetaData, Table, Text
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeEngine

from credit.records import PPM

_MOMENT = "____-__-__T__:__:__.______Z"

# Constraints get names by rule, because `credit verify` compares constraints by name.
metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

BIG = BigInteger().with_variant(Integer(), "sqlite")
TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def table(name: str, *items: SchemaItem, by_key: bool = False) -> Table:
    """Return a table of the ledger; with `by_key`, SQLite stores its rows in the order of the primary key."""
    # Strict, because SQLite otherwise stores text in a column of integers.
    return Table(name, metadata, *items, sqlite_strict=True, sqlite_with_rowid=not by_key)


def checked(name: str, kind: TypeEngine[Any], condition: str, *, nullable: bool = False) -> Column[Any]:
    """Return a column with a check of its values; `{}` in the condition is the column's name."""
    return Column(name, kind, CheckConstraint(condition.format(name), name=name), nullable=nullable)


def row_id() -> Column[int]:
    """Return the primary key of a table with rows numbered by `next_id`."""
    return Column("id", BIG, CheckConstraint("id >= 1", name="id"), primary_key=True, autoincrement=False)


def ref(name: str, target: str, *, nullable: bool = False, deferred: bool = False) -> Column[int]:
    """Return a reference to a row of another table; `deferred`: looked up when the transaction commits."""
    key: ForeignKey = ForeignKey(target, deferrable=True, initially="DEFERRED") if deferred else ForeignKey(target)
    return Column(name, BIG, key, nullable=nullable)


def big(name: str) -> Column[int]:
    """Return a column of 64-bit integers."""
    return Column(name, BIG, nullable=False)


def integer(name: str, condition: str) -> Column[int]:
    """Return a column of 64-bit integers with a condition, such as `>= 1`."""
    return checked(name, BIG, f"{{}} {condition}")


def count(name: str) -> Column[int]:
    """Return a column of integers from 0 on."""
    return integer(name, ">= 0")


def ppm(name: str) -> Column[int]:
    """Return a column of parts per million, from none to all."""
    return integer(name, f"BETWEEN 0 AND {PPM}")


def text(name: str, *, nullable: bool = False) -> Column[str]:
    """Return a column of any text."""
    return Column(name, TEXT, nullable=nullable)


def word(name: str) -> Column[str]:
    """Return a column of text of at least one character."""
    return checked(name, TEXT, "length({}) >= 1")


def sha256(name: str) -> Column[str]:
    """Return a column of SHA-256 in hexadecimal."""
    return checked(name, TEXT, "length({}) = 64")


def pseudonym(name: str) -> Column[str]:
    """Return a column of keyed hashes: 8 digits of the key's id, 32 of the hash. A row from before them has none."""
    return checked(name, TEXT, "length({}) = 41", nullable=True)


def moment(name: str, *, nullable: bool = False) -> Column[str]:
    """Return a column of moments as `utc_text` writes them."""
    return checked(name, TEXT, f"{{}} LIKE '{_MOMENT}'", nullable=nullable)


def day(name: str, *, nullable: bool = False) -> Column[str]:
    """Return a column of days, YYYY-MM-DD."""
    return checked(name, TEXT, "{} LIKE '____-__-__'", nullable=nullable)


def actor() -> Column[str]:
    """Return a column of actors; a row from before actors were recorded has none."""
    return checked("actor", TEXT, "length({}) BETWEEN 1 AND 128", nullable=True)


def in_period() -> Column[str]:
    """Return the period of a row, a reference to its table."""
    return Column("period_id", TEXT, ForeignKey("period.id"), nullable=False)


def currency(name: str = "currency", *, nullable: bool = False) -> Column[str]:
    """Return a column of ISO 4217 codes."""
    return checked(name, TEXT, "{} LIKE '___'", nullable=nullable)


def one_of(name: str, *values: str, nullable: bool = False) -> Column[str]:
    """Return a column with one of `values`."""
    options = ", ".join(f"'{value}'" for value in values)
    return checked(name, TEXT, f"{{}} IN ({options})", nullable=nullable)
