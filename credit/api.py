"""The toolkit in Python: what the commands do, with values in place of options, and polars frames in place of tables.

    import credit

    books = credit.open("sqlite:///credit.db", "credit-data")
    books.create()
    books.ingest("outputs.jsonl")
    books.compute()
    books.attribution("2026-01")        # a polars frame

Every method opens the ledger, does its work in one piece, and closes it, as a command does. What is refused there is
refused here: errors are those of `credit.errors`, with the same messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from credit.accounting.amounts import parse_amount
from credit.approval.actions import Action, AddPool, Close, Effect
from credit.approval.proposals import perform
from credit.errors import InvalidRequestError
from credit.ingest.pseudonyms import read_key
from credit.ledger.approvals import Proposal
from credit.ledger.database import upgrade
from credit.ledger.providers import add_provider
from credit.ledger.verify import VerifyReport, verify
from credit.pipeline.close import ClosePolicy, CloseReport, close_period
from credit.pipeline.ingest import IngestReport, import_providers
from credit.pipeline.ingest_outputs import ingest_outputs
from credit.pipeline.status import Overview, overview
from credit.pipeline.workspace import Workspace, ledger_key
from credit.records import Provider
from credit.reporting import frames
from credit.storage import make_folder

if TYPE_CHECKING:
    import polars as pl

    from credit.ledger.pools import Pool
    from credit.pipeline.compute import ComputeReport, ComputeSettings
    from credit.pipeline.index import IndexReport
    from credit.valuation import IndexSettings

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Toolkit:
    """A ledger with its files, and the work on it; `credit.open` makes one.

    Where the ledger asks for two people (`credit approve require`), a method that moves money does nothing and returns
    the `Proposal` that it has recorded. Somebody else approves it.

    Attributes:
        workspace: database, data folder and actor.
        user_key: file of the key behind the pseudonyms of users; None for that of the data folder.
    """

    workspace: Workspace
    user_key: Path | None = None

    def create(self) -> str:
        """Create the ledger, or upgrade it to this version; return its revision. As `credit init`."""
        revision = upgrade(self.workspace.database)
        make_folder(self.workspace.data_dir)
        return revision

    def status(self) -> Overview:
        """Return the contents of the ledger in numbers, and the commands that come next."""
        with self.workspace.open() as ledger, ledger.read() as conn:
            return overview(conn, now=datetime.now(UTC))

    def verify(self) -> VerifyReport:
        """Recompute the hash chains, every balance and every checksum; `problems` is empty if all is as written."""
        with self.workspace.open() as ledger:
            return verify(ledger, self.workspace.books)

    # Providers, data and outputs

    def add_provider(self, key: str, name: str, kind: Literal["provider", "house"] = "provider") -> None:
        """Add a provider, or rename it.

        Args:
            key: the name by which training data call it.
            name: its name on statements.
            kind: `house` for own or public-domain data.
        """
        with self.workspace.open() as ledger, ledger.write() as conn:
            add_provider(conn, Provider(key, name, kind), now=datetime.now(UTC))

    def import_providers(self, path: str | Path) -> IngestReport:
        """Add the providers of a CSV file: columns key, name; optional kind, currency, minimum_payout."""
        return import_providers(self.workspace, Path(path))

    def index(
        self,
        model: str | Path,
        *data: str | Path,
        out: str | Path,
        name: str | None = None,
        settings: IndexSettings | None = None,
        update: bool = False,
    ) -> IndexReport:
        """Build, or update, the attribution index of a model's training data, and register it.

        Args:
            model: folder of the model.
            data: files and folders of training data.
            out: folder of the index.
            name: name of the model in logs; None for that of its folder.
            settings: everything else that decides the numbers; None for the defaults.
            update: add the data to an index that is there.
        """
        # Models take seconds to import, and most scripts need none.
        from credit.pipeline.index import IndexRequest, index_training_data
        from credit.valuation import IndexSettings as Settings

        request = IndexRequest(
            Path(model),
            [Path(path) for path in data],
            Path(out),
            name or Path(model).resolve().name,
            settings or Settings(),
            update=update,
        )
        return index_training_data(self.workspace, request)

    def ingest(self, *paths: str | Path, source: str | None = None, model: str = "") -> list[IngestReport]:
        """Log the outputs of some files; known ones are counted as duplicates.

        Args:
            paths: logs of any format that credit reads.
            source: name of the logger, where the log does not say it.
            model: name of the model, where the log does not say it.
        """
        key = read_key(self.user_key) if self.user_key else None
        return [ingest_outputs(self.workspace, Path(path), source=source, model=model, key=key) for path in paths]

    def compute(self, settings: ComputeSettings | None = None) -> ComputeReport:
        """Value the pending outputs, and post their credits."""
        from credit.pipeline.compute import ComputeSettings as Settings
        from credit.pipeline.compute import compute

        return compute(self.workspace, settings or Settings())

    # Money

    def add_pool(
        self,
        period: str,
        amount: Decimal | str | int,
        currency: str,
        *,
        deductions: Decimal | str | int = 0,
        reference: str = "main",
    ) -> Pool | Proposal:
        """Add money to distribute for a period. The same call again adds nothing.

        Args:
            period: the month, `YYYY-MM`.
            amount: amount in the currency's main unit, exact: no float.
            currency: ISO 4217 code.
            deductions: taken off before distribution.
            reference: tells several pools of a period apart.

        Raises:
            InvalidRequestError: an amount is a float, or has more decimals than the currency.
        """
        for value in (amount, deductions):
            if isinstance(value, float):
                raise InvalidRequestError(f"{value!r} is a float, which is not exact; write it as text or Decimal")
        gross, less = (parse_amount(str(value), currency) for value in (amount, deductions))
        return self._act(AddPool(period, currency, gross, less, reference))

    def close(self, period: str, policy: ClosePolicy | None = None, *, dry_run: bool = False) -> CloseReport | Proposal:
        """Divide the pools of a period by credits, decide payouts, write statements, and freeze the period.

        Args:
            period: the month, `YYYY-MM`.
            policy: the rules; None for the defaults.
            dry_run: return the result, and keep nothing of it.
        """
        rules = policy or ClosePolicy()
        if not dry_run:
            return self._act(Close(period, rules))
        with self.workspace.open() as ledger:
            return close_period(ledger, period, rules, books=self.workspace.books, dry_run=True)

    def _act(self, action: Action[R]) -> R | Proposal:
        with self.workspace.open() as ledger:
            done = perform(ledger, action, books=self.workspace.books)
        return done.result if isinstance(done, Effect) else done

    # Reports

    def attribution(
        self, period: str, by: Literal["provider", "collection", "output", "day"] = "provider"
    ) -> pl.DataFrame:
        """Return the earners of a period's credits: measures in nats, credits in micro-credits, shares as fractions."""
        with self.workspace.open() as ledger, ledger.read() as conn:
            return frames.attribution(conn, self.workspace.books, period, by)

    def payouts(self, period: str) -> pl.DataFrame:
        """Return the payout of every provider for a closed period, with amounts as decimal strings."""
        with self.workspace.open() as ledger, ledger.read() as conn:
            return frames.payouts(conn, period)

    def trends(self, since: str | None = None, until: str | None = None) -> pl.DataFrame:
        """Return the shares and the money of every provider by month."""
        with self.workspace.open() as ledger, ledger.read() as conn:
            return frames.trends(conn, self.workspace.books, since, until)

    def statements(self, period: str) -> dict[str, Mapping[str, Any]]:
        """Return the latest statement of every provider for a closed period, as its JSON says, by key."""
        with self.workspace.open() as ledger, ledger.read() as conn:
            return {item.provider: json.loads(item.body_json) for item in frames.latest_statements(conn, period)}

    def export(self, period: str, out: str | Path) -> Sequence[Path]:
        """Write a folder for each provider with its statement and its own numbers, unsigned; return the folders."""
        from credit.reporting.export import export_period

        with self.workspace.open() as ledger:
            with ledger.read() as conn:
                pseudonyms = ledger_key(self.workspace, conn, self.user_key)
            return export_period(ledger, self.workspace.books, period, Path(out), unsigned=True, pseudonyms=pseudonyms)
