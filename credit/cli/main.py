"""The `credit` command. It imports the module of a command when that runs: `--help` answers at once."""

from __future__ import annotations

import importlib
from typing import Any

import click

from credit.cli.options import CommandGroup, actor_option
from credit.cli.printing import say_error
from credit.errors import CreditError
from credit.storage import why_disk_is_full
from credit.text import printable_lines
from credit.version import VERSION

SECTIONS = {
    "Training data and index": {
        "init": ("ledger", "Create the ledger, or upgrade it."),
        "providers": ("providers", "Add providers, agree terms, keep payment details."),
        "data": ("training_data", "Check what an index would take of training data."),
        "overlap": ("training_data", "Find text that several providers contributed."),
        "membership": ("training_data", "Find text that the model was perhaps never trained on."),
        "index": ("index", "Build or change the attribution index."),
        "validate": ("validate", "Check attribution against retrained models."),
    },
    "Outputs and credits": {
        "ingest-outputs": ("outputs", "Log a model's outputs."),
        "models": ("models", "Let names in logs stand for a model."),
        "compute": ("compute", "Value pending outputs, and post their credits."),
        "purge": ("outputs", "Delete the texts of valued outputs, and keep their numbers."),
        "outputs": ("outputs", "List pending outputs, take out those that can never be valued."),
    },
    "Money of a period": {
        "month": ("month", "Do a month's commands in order, up to where a person decides."),
        "pool": ("money", "Add money to distribute."),
        "fx": ("money", "Add exchange rates."),
        "close": ("close", "Divide the pools, write statements, freeze the period."),
        "pay": ("pay", "Write payment files, record the bank's results."),
        "remit": ("money", "Record payments of withheld tax, of fees, and to the owner."),
        "hold": ("terms", "Hold back money of a provider, or release it."),
        "adjust": ("corrections", "Correct the money owed to a provider."),
        "reverse": ("corrections", "Undo a transaction."),
        "approve": ("approve", "Let a second person approve what moves money."),
        "restate": ("corrections", "Recompute a closed period, and post the difference."),
    },
    "Reports and statements": {
        "report": ("report", "Show attribution and payouts of a period."),
        "export": ("statements", "Write one folder per provider, with its own data only."),
        "issuer": ("statements", "Set the name and address on statements."),
        "signing-key": ("signing_key", "Make, hand over and revoke the keys that sign."),
        "verify-statement": ("statements", "Check a provider's signed folder, without a ledger."),
    },
    "Questions and checks": {
        "status": ("ledger", "Show the contents of the ledger and the next commands."),
        "explain": ("explain", "Trace an amount, an output or a transaction to its sources."),
        "balance": ("ledger", "Show the balance of an account, as of any day."),
        "transactions": ("ledger", "List transactions, with the numbers that reverse takes."),
        "roles": ("ledger", "Print the SQL of database roles for PostgreSQL."),
        "verify": ("ledger", "Check every hash, balance and file."),
        "head": ("head", "Sign heads of the ledger, and check it against heads kept elsewhere."),
        "demo": ("demo", "See everything on real data, offline."),
    },
}
"""Every command with its module in `credit.cli` and its line of help, which must be known before any import."""

_COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}

_WRONG_PATH = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
"""Errors of a path that the caller named: they are shown as a message, without a trace."""


class _Failure(click.ClickException):
    """One of the project's errors, as Click shows it."""

    def __init__(self, error: CreditError) -> None:
        super().__init__(printable_lines(str(error)))
        self.exit_code = error.exit_code  # type: ignore[misc]  # Click declares it on the class, and documents this use


class _LazyGroup(CommandGroup):
    """A command group with lazy imports; it turns the project's errors into messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        # Only the module of the typed command: torch and polars would make every --help take seconds.
        module = importlib.import_module(f"credit.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<16}", line) for name, (_, line) in commands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke(ctx)
        except click.ClickException as error:
            say_error(ctx, error.format_message(), error.exit_code)
            raise

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CreditError as error:
            raise _Failure(error) from error
        # A full disk or a mistyped path is nobody's bug; any other OSError keeps its trace.
        except OSError as error:
            reason = why_disk_is_full(error)
            if reason is not None:
                raise _Failure(CreditError(f"{error.filename or 'a file'} cannot be written: {reason}")) from error
            if error.filename is None or not isinstance(error, _WRONG_PATH):
                raise
            raise _Failure(CreditError(f"{error.filename}: {error.strerror}; name another path")) from error


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="credit")
@actor_option
def cli() -> None:
    """Trace a model's answers to the training data behind them, and pay its providers.

    The way through: init, providers import, data check, membership, index, ingest-outputs, compute, validate, pool add,
    close --dry-run, close, report, export, pay export. `credit status` names the next step.

    The ledger is credit.db in this folder, its files are in credit-data. --database or CREDIT_DATABASE_URL, and
    --data-dir or CREDIT_DATA_DIR, name others.

    \b
    Exit codes: 0 done, or nothing to do; 1 failed; 2 wrong usage; 3 done in
    part, some input quarantined or refused; 4 stored data was changed;
    11 another run is at work. Every command can be repeated, killed, or run
    twice at once: it counts everything exactly once.

    \b
    To complete commands with the tab key:
      bash  eval "$(_CREDIT_COMPLETE=bash_source credit)"   in ~/.bashrc
      zsh   eval "$(_CREDIT_COMPLETE=zsh_source credit)"    in ~/.zshrc
      fish  _CREDIT_COMPLETE=fish_source credit | source    in config.fish

    Example: credit demo
    """


def main() -> None:
    """Entry point of the `credit` script."""
    cli(prog_name="credit")
