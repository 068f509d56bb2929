"""Place of a ledger and of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from credit.errors import LedgerError
from credit.ingest.pseudonyms import PseudonymKey, key_id, own_key, read_key
from credit.ledger.database import Ledger, sqlite_file
from credit.ledger.outputs import last_pseudonym
from credit.storage import is_exposed


@dataclass(frozen=True, slots=True)
class Workspace:
    """A ledger's database, the folder of its files, and who writes; None for the system's user and host."""

    database: str
    data_dir: Path
    actor: str | None = None

    def open(self) -> Ledger:
        """Open the ledger; LedgerError with the remedy if there is none."""
        return Ledger.open(self.database, actor=self.actor)

    @property
    def exposed(self) -> tuple[Path, ...]:
        """The ledger's file and the data folder, where they are there and others can read them."""
        database = sqlite_file(self.database)
        places = [self.data_dir] if database is None else [database, self.data_dir]
        return tuple(place for place in places if place.exists() and is_exposed(place))

    @property
    def books(self) -> Path:
        """Folder of the score books."""
        return self.data_dir / "books"

    @property
    def pseudonym_key(self) -> Path:
        """File of the secret key behind the pseudonyms of users."""
        return self.data_dir / "pseudonyms.key"

    @property
    def quarantine(self) -> Path:
        """Folder of the quarantined records."""
        return self.data_dir / "quarantine"


def ledger_key(workspace: Workspace, conn: Connection, file: Path | None = None) -> PseudonymKey:
    """Return the key of a ledger's pseudonyms, from a file or the data folder; there it is drawn at first need.

    Raises:
        InputError: the file holds no key.
        LedgerError: the newest output has pseudonyms of another key.
    """
    key = own_key(workspace.pseudonym_key) if file is None else read_key(file)
    check_key(conn, key)
    return key


def check_key(conn: Connection, key: PseudonymKey) -> None:
    """Refuse any key but the newest output's: one user would be two, and one call logged again another."""
    newest = last_pseudonym(conn)
    if newest and key_id(newest) != key.id:
        raise LedgerError(
            f"users of this ledger have pseudonyms of the key {key_id(newest)}, and this is the key {key.id}; give the"
            " first one: --user-key FILE, or as pseudonyms.key in the data folder; if it is lost, users begin anew:"
            " credit ingest-outputs --new-user-key"
        )
