"""Actor: the person or service that asks for a change. `Ledger.open` takes it once; every write carries it.

A transaction names its actor in its hash. A row outside the journal is named by its seal, so both chains say who
wrote each link. Rows from before revision 0002 name nobody: `NOT_RECORDED`.

An actor is a claim. On SQLite it proves no more than the operating system's user does; see SECURITY.md.
"""

from __future__ import annotations

import getpass
import socket

from sqlalchemy import Connection

from credit.errors import InvalidRequestError
from credit.ledger.values import is_storable
from credit.text import invisible_character

NOT_RECORDED = "not recorded"
"""Shown for what was written before actors were recorded."""

OPTION = "credit_actor"
"""Execution option of the connections of a `Ledger`."""

LONGEST = 128
"""Most characters of an actor."""


def system_actor() -> str:
    """Return the system's user and host, as in `anna@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "nobody"
    return f"{user}@{socket.gethostname()}"


def checked_actor(text: str) -> str:
    """Return the name of an actor.

    Raises:
        InvalidRequestError: it is empty or too long, or holds outer spaces or characters that nobody sees.
    """
    if not 1 <= len(text) <= LONGEST or text != text.strip() or not is_storable(text):
        raise InvalidRequestError(
            f"an actor is a name of 1 to {LONGEST} characters without outer spaces, such as anna@finance"
        )
    if found := invisible_character(text):
        raise InvalidRequestError(f"the actor's name holds the invisible character {found}; take it out")
    if text == NOT_RECORDED:
        raise InvalidRequestError(f"an actor cannot be named {NOT_RECORDED!r}")
    return text


def actor_of(conn: Connection) -> str | None:
    """Return the actor of a connection of a `Ledger`; None for another connection, which can write nothing."""
    found: str | None = conn.get_execution_options().get(OPTION)
    return found


def shown(actor: str | None) -> str:
    """Return an actor for people to read."""
    return NOT_RECORDED if actor is None else actor
