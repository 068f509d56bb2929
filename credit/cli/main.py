"""The `credit` command. Commands are imported when they are called, so that `--help` answers at once."""

from __future__ import annotations

import importlib
from typing import Any

import click

from credit import __version__
from credit.cli.options import say_error
from credit.errors import CreditError
from credit.storage import why_disk_is_full
from credit.text import printable_lines

_COMMANDS = {
    "init": ("credit.cli.ledger", "Create the ledger, or upgrade it."),
    "providers": ("credit.cli.providers", "Who can be credited, and on what terms."),
    "overlap": ("credit.cli.overlap", "Who contributed text that others contributed too."),
    "membership": ("credit.cli.membership", "Whose text the model shows no sign of having been trained on."),
    "index": ("credit.cli.index", "Build the attribution index of tagged training data."),
    "ingest-outputs": ("credit.cli.ingest", "Log a model's outputs."),
    "outputs": ("credit.cli.outputs", "Set outputs aside that cannot be valued."),
    "compute": ("credit.cli.compute", "Value what is not valued yet, and post credits."),
    "pool": ("credit.cli.pool", "Money to distribute."),
    "fx": ("credit.cli.fx", "Rates of exchange, as they were given."),
    "close": ("credit.cli.close", "Allocate a period's pools, write statements, freeze it."),
    "adjust": ("credit.cli.corrections", "Correct what is owed to a provider."),
    "reverse": ("credit.cli.corrections", "Undo a transaction."),
    "restate": ("credit.cli.restate", "Recompute a closed period, and adjust the open one."),
    "transactions": ("credit.cli.transactions", "What was posted, with the numbers to reverse it by."),
    "hold": ("credit.cli.hold", "Hold back what a provider would be paid."),
    "balance": ("credit.cli.corrections", "What an account holds, as of any day."),
    "pay": ("credit.cli.pay", "Payment files out, a bank's results in."),
    "report": ("credit.cli.report", "Attribution and payouts of a period."),
    "export": ("credit.cli.export", "One folder per provider, with its own data alone."),
    "issuer": ("credit.cli.issuer", "Who issues statements: name, address, legal text."),
    "signing-key": ("credit.cli.signing", "Make the key that statements are signed with."),
    "verify-statement": ("credit.cli.signing", "Check a signed statement, without the ledger."),
    "validate": ("credit.cli.validate", "Does attribution predict what happens without a provider?"),
    "explain": ("credit.cli.explain", "Where a number comes from, and why somebody is not paid."),
    "status": ("credit.cli.ledger", "What the ledger holds, and what is to be done."),
    "verify": ("credit.cli.ledger", "Check every hash, balance and file."),
    "demo": ("credit.cli.demo", "See it all on real data: one command, no downloads."),
}
"""Every command with its module and its line in the help, which is there without importing the module."""


_WRONG_PATH = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
"""What the system says of a path that the caller named: a message, and no trace."""


class _Failure(click.ClickException):
    """One of the project's errors, as Click shows it."""

    def __init__(self, error: CreditError) -> None:
        super().__init__(printable_lines(str(error)))
        self.exit_code = error.exit_code  # type: ignore[misc]  # Click declares it on the class, and documents this use


class _LazyGroup(click.Group):
    """Knows its commands by name, and turns the project's errors into messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])

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
        except OSError as error:
            reason = why_disk_is_full(error)
            if reason is not None:
                raise _Failure(CreditError(f"{error.filename or 'a file'} cannot be written: {reason}")) from error
            if error.filename is None or not isinstance(error, _WRONG_PATH):
                raise
            raise _Failure(CreditError(f"{error.filename}: {error.strerror}; name another path")) from error


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="credit")
def cli() -> None:
    """Say whose training data a model's answers drew on, and pay for it.

    The way through: init, providers import, overlap, membership, index, ingest-outputs, compute, validate, pool add,
    close --dry-run, close, report, export, pay export. `credit status` says what is next.

    The ledger is credit.db in this folder, unless --database or CREDIT_DATABASE_URL names another; its files lie in
    credit-data, unless --data-dir or CREDIT_DATA_DIR does.

    \b
    Exit codes: 0 done, or nothing to do; 1 failed; 2 wrong usage; 3 done in
    part, some input quarantined; 4 stored data was changed; 11 another run is
    at work. Any command may run twice, at once, or be killed: nothing is
    counted twice.

    \b
    The tab key completes commands once your shell knows how:
      bash  eval "$(_CREDIT_COMPLETE=bash_source credit)"   in ~/.bashrc
      zsh   eval "$(_CREDIT_COMPLETE=zsh_source credit)"    in ~/.zshrc
      fish  _CREDIT_COMPLETE=fish_source credit | source    in config.fish

    Example: credit demo
    """


def main() -> None:
    """Entry point of the `credit` script."""
    cli(prog_name="credit")
