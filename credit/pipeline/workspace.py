"""Place of a ledger and of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from credit.ledger.database import Ledger, sqlite_file
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
