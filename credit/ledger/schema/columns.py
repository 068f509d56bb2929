"""The kinds of columns that the tables are made of, each with the check that keeps its values in form."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Integer, MetaData, Text

from credit.records import PPM

_MOMENT = "____-__-__T__:__:__.______Z"

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


def row_id() -> Column[int]:
    """Return the key of a table whose rows are numbered by `next_id`."""
    return Column("id", BIG, CheckConstraint("id >= 1", name="id"), primary_key=True, autoincrement=False)


def ref(name: str, target: str, *, nullable: bool = False, deferred: bool = False) -> Column[int]:
    """Return a reference to a row of another table; `deferred`: looked up when the transaction commits."""
    key: ForeignKey = ForeignKey(target, deferrable=True, initially="DEFERRED") if deferred else ForeignKey(target)
    return Column(name, BIG, key, nullable=nullable)


def big(name: str) -> Column[int]:
    """Return a column of 64-bit integers."""
    return Column(name, BIG, nullable=False)


def count(name: str) -> Column[int]:
    """Return a column of integers from 0 on."""
    return Column(name, BIG, CheckConstraint(f"{name} >= 0", name=name), nullable=False)


def ppm(name: str) -> Column[int]:
    """Return a column of parts per million, from none to all."""
    return Column(name, BIG, CheckConstraint(f"{name} BETWEEN 0 AND {PPM}", name=name), nullable=False)


def text(name: str, *, nullable: bool = False) -> Column[str]:
    """Return a column of any text."""
    return Column(name, TEXT, nullable=nullable)


def word(name: str) -> Column[str]:
    """Return a column of text that is not empty."""
    return Column(name, TEXT, CheckConstraint(f"length({name}) >= 1", name=name), nullable=False)


def sha256(name: str) -> Column[str]:
    """Return a column of SHA-256 in hexadecimal."""
    return Column(name, TEXT, CheckConstraint(f"length({name}) = 64", name=name), nullable=False)


def moment(name: str, *, nullable: bool = False) -> Column[str]:
    """Return a column of moments as `utc_text` writes them."""
    return Column(name, TEXT, CheckConstraint(f"{name} LIKE '{_MOMENT}'", name=name), nullable=nullable)


def day(name: str, *, nullable: bool = False) -> Column[str]:
    """Return a column of days, YYYY-MM-DD."""
    return Column(name, TEXT, CheckConstraint(f"{name} LIKE '____-__-__'", name=name), nullable=nullable)


def in_period() -> Column[str]:
    """Return the period that a row belongs to."""
    return Column("period_id", TEXT, ForeignKey("period.id"), nullable=False)


def currency(*, nullable: bool = False) -> Column[str]:
    """Return a column of ISO 4217 codes."""
    return Column("currency", TEXT, CheckConstraint("currency LIKE '___'", name="currency"), nullable=nullable)


def one_of(name: str, *values: str) -> Column[str]:
    """Return a column that holds one of `values`."""
    options = ", ".join(f"'{value}'" for value in values)
    return Column(name, TEXT, CheckConstraint(f"{name} IN ({options})", name=name), nullable=False)
