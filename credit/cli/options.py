"""Parameters shared by commands, each declared once, and the class of command groups."""

from __future__ import annotations

import difflib
import functools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from credit.cli.printing import ask_for_json, warn
from credit.engines.choice import ENGINES
from credit.records import WAITING_DAYS, is_period

R = TypeVar("R")

FILE = click.Path(path_type=Path, readable=False)
"""A path as typed. A file that cannot be read raises an error of its own, and keeps no other file out."""
NUMBER = click.IntRange(1, 2**63 - 1)
"""The number of a row in the ledger."""
DAY = click.DateTime(["%Y-%m-%d"])


class _Period(click.ParamType[str]):
    """A calendar month, as the ledger names it."""

    name = "YYYY-MM"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not is_period(str(value)):
            self.fail(f"{value!r} is not a period; a period is a month, written YYYY-MM", param, ctx)
        return str(value)


PERIOD = _Period()


class _Currency(click.ParamType[str]):
    """An ISO 4217 code: money in any other could never be paid."""

    name = "currency"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from credit.accounting.amounts import currency_digits
        from credit.errors import InvalidRequestError

        try:
            currency_digits(str(value))
        except InvalidRequestError as error:
            self.fail(str(error), param, ctx)
        return str(value)


CURRENCY = _Currency()


class CommandGroup(click.Group):
    """A group of commands: its help shows each command's line whole, and a mistyped name gets a suggestion."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their lines."""
        commands = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(limit=500)) for name, command in commands])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names; a usage error with the nearest names if there is none."""
        name = args[0]
        # An option in the place of a command has a better message of its own.
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            near = difflib.get_close_matches(name.lower(), self.list_commands(ctx), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {name!r}{hint}")
        return super().resolve_command(ctx, args)


def _note_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ask_for_json(ctx)


json_option = click.option(
    "--json",
    is_flag=True,
    is_eager=True,  # read before any other option can be refused, so that the refusal is JSON too
    expose_value=False,
    callback=_note_json,
    help="Print one JSON object instead of text; errors too.",
)


_ACTOR = "credit.actor"


def _note_actor(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    ctx.meta[_ACTOR] = value


actor_option = click.option(
    "--actor",
    metavar="NAME",
    envvar="CREDIT_ACTOR",
    show_envvar=True,
    expose_value=False,
    callback=_note_actor,
    help="Who asks for it; on record with everything written.  [default: the system's USER@HOST]",
)


def _field_mapping(_ctx: click.Context, _param: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    fields = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(fields) != len(pairs):
        raise click.UsageError("--field takes OURS=THEIRS, each of ours once, such as --field text=content")
    return fields


field_option = click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="OURS=THEIRS",
    callback=_field_mapping,
    help="Name of a field in the files, such as text=content. May be repeated.",
)


def training_options(provider: str = "--provider") -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add the options that say how to read training data, and pass them on as one `source`.

    Args:
        provider: name of the option for the provider of all data, where a command has another `--provider`.
    """

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @field_option
        @click.option(provider, "data_provider", metavar="KEY", help="Provider of the records in DATA that name none.")
        @click.option(
            "--provider-from",
            metavar="FIELD|path|croissant",
            help="Take the provider from this field (metadata.source), from the first part of the file's path, or from"
            " the creator in a croissant.json beside the file.",
        )
        @click.option(
            "--provider-map",
            type=FILE,
            metavar="CSV",
            help="Map those values to providers: columns value,provider. Domains and paths match their parts too.",
        )
        @click.option(
            "--preference",
            type=click.Choice(["chosen", "both"]),
            default="chosen",
            show_default=True,
            help="Answers of preference pairs that count as training data.",
        )
        @click.option(
            "--instructions",
            type=click.Choice(["chat", "alpaca"]),
            default="chat",
            show_default=True,
            help="Records with an instruction were trained on as chats, or in the words of Stanford Alpaca.",
        )
        @functools.wraps(command)
        def with_source(
            fields: dict[str, str],
            data_provider: str | None,
            provider_from: str | None,
            provider_map: Path | None,
            preference: Literal["chosen", "both"],
            instructions: Literal["chat", "alpaca"],
            *args: Any,
            **kwargs: Any,
        ) -> R:
            from credit.ingest.training_source import TrainingSource

            source = TrainingSource(fields, data_provider, provider_from, provider_map, preference, instructions)
            return command(*args, source=source, **kwargs)

        return with_source

    return decorate


def _read_parts(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """Return a device as typed, and in place of a JSON file its text: workers may run in other folders."""
    if not value.endswith(".json"):
        return value
    try:
        return Path(value).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{value} cannot be read: {error}") from error


device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=_read_parts,
    metavar="DEVICE|spread|JSON",
    help="cpu, cuda, cuda:1, ... A model in parts: spread over GPUs, memory and disk, or the place of each as JSON "
    'or in a FILE.json: {"model.layers.0": "disk", "": "cpu"}.',
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["auto", "fp32", "bf16", "fp16", "fp64"]),
    default="auto",
    show_default=True,
    help="Number format of the model.",
)
models_option = click.option(
    "--model",
    "models",
    type=FILE,
    multiple=True,
    help="New place of the model or of a checkpoint, if moved. May be repeated.  [default: where it was indexed]",
)
user_key_option = click.option(
    "--user-key",
    envvar="CREDIT_USER_KEY",
    type=FILE,
    metavar="FILE",
    show_envvar=True,
    help="Secret key of the pseudonyms.  [default: pseudonyms.key in the data folder, made at first need]",
)
reason_option = click.option("--reason", required=True, help="Why, in words; it stays on record.")
waiting_option = click.option(
    "--waiting-days",
    envvar="CREDIT_WAITING_DAYS",
    show_envvar=True,
    type=click.IntRange(0, 366),
    default=WAITING_DAYS,
    show_default=True,
    help="Days for which a changed account waits for its first payment.",
)
printed_reason_option = click.option("--reason", required=True, help="Why, in words; printed on the statement.")


def workspace_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add `--database` and `--data-dir`, and pass them on as one `workspace`."""

    @click.option(
        "--database",
        envvar="CREDIT_DATABASE_URL",
        default="sqlite:///credit.db",
        show_default=True,
        show_envvar=True,
        help="The ledger: sqlite:///FILE or postgresql://...",
    )
    @click.option(
        "--data-dir",
        envvar="CREDIT_DATA_DIR",
        default="credit-data",
        show_default=True,
        show_envvar=True,
        type=FILE,
        help="Folder of the ledger's files: score books and quarantined records.",
    )
    @functools.wraps(command)
    def with_workspace(database: str, data_dir: Path, *args: Any, **kwargs: Any) -> R:
        from credit.pipeline.workspace import Workspace

        workspace = Workspace(database, data_dir, click.get_current_context().meta.get(_ACTOR))
        if exposed := shlex.join(map(str, workspace.exposed)):
            warn(f"warning: others can read {exposed}; keep it to yourself: chmod -R go= {exposed}")
        return command(*args, workspace=workspace, **kwargs)

    return with_workspace


def ledger_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options of a command on a ledger: `--database`, `--data-dir` and `--json`."""
    return workspace_options(json_option(command))


def _credits(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int | None:
    """Return micro-credits from a decimal number of credits."""
    from credit.ingest.fields import FieldError, weight_micro

    try:
        return None if text is None else weight_micro(text)
    except FieldError as error:
        raise click.UsageError(f"--user-cap {error}") from error


def policy_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options of the policy of credits, and pass those given on as one `policy`, by field of `Policy`."""

    @click.option("--measure", type=click.Choice(["effect", "support", "influence"]), help="Earns the credits.")
    @click.option("--alpha", type=float, help="Weight of influence in effect.")
    @click.option("--beta", type=float, help="Weight of support in effect.")
    @click.option("--gamma", type=float, help="Weight of volume in effect.")
    @click.option(
        "--basis",
        type=click.Choice(["output", "period"]),
        help="Each output distributes its own weight, or the period distributes all weights by its sums.",
    )
    @click.option(
        "--negative",
        type=click.Choice(["zero", "net"]),
        help="Negative measures count as zero, or are set off within the period.",
    )
    @click.option(
        "--thoughts",
        type=click.Choice(["context", "paid"]),
        help="A model's thoughts are context of its answer, or are valued with it.",
    )
    @click.option(
        "--counterfactual",
        type=click.Choice(["removed", "replaced"]),
        help="Without a provider's data, the model trains fewer steps, or as many on the others' data.",
    )
    @click.option("--noise-floor", type=float, help="Effect counts pulls beyond this many spreads.")
    @click.option(
        "--echo",
        type=click.IntRange(0, 10_000),
        help="Pay for no tokens of an output where this many in a row repeat its prompt; 0: pay for all.",
    )
    @click.option(
        "--repeats",
        type=click.IntRange(min=0),
        help="Times that one user's outputs of one text count on a day; 0: each time.",
    )
    @click.option(
        "--user-cap",
        "user_cap_micro",
        metavar="CREDITS",
        callback=_credits,
        help="Credits that one user's outputs of a day distribute, at most; 0: no limit.",
    )
    @functools.wraps(command)
    def with_policy(*args: Any, **kwargs: Any) -> R:
        numbers = ("alpha", "beta", "gamma", "noise_floor", "echo", "repeats", "user_cap_micro")
        names = ("measure", "basis", "negative", "thoughts", "counterfactual", *numbers)
        # Only what was typed: the rest keeps the defaults of `Policy`, or of the period to restate.
        given = {name: kwargs.pop(name) for name in names}
        return command(*args, policy={name: value for name, value in given.items() if value is not None}, **kwargs)

    return with_policy


def engine_options(workers: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add the options of the engine, and pass them on as one `engine`; `workers` is the help of `--workers`."""

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @click.option(
            "--engine",
            "engine_name",
            type=click.Choice(ENGINES),
            help="Workers are processes of this machine, or actors of a Ray cluster.  [default: local]",
        )
        @click.option(
            "--workers",
            type=click.IntRange(min=1),
            help=f"{workers}  [default: 1; with --engine, as many as there is room for]",
        )
        @click.option("--address", metavar="HOST:PORT", help="Head of the Ray cluster.  [default: this machine's]")
        @functools.wraps(command)
        def with_engine(
            engine_name: Literal["local", "ray"] | None,
            workers: int | None,
            address: str | None,
            *args: Any,
            **kwargs: Any,
        ) -> R:
            from credit.engines import EngineChoice

            return command(*args, engine=EngineChoice(engine_name, workers, address), **kwargs)

        return with_engine

    return decorate
