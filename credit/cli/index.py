"""`credit index`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from credit.cli.options import FILE, device_option, dtype_option, engine_options, ledger_options, training_options
from credit.cli.printing import progress_bar, say, warn
from credit.errors import EXIT_PARTIAL
from credit.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credit.engines import EngineChoice, Slice
    from credit.ingest.training_source import TrainingSource
    from credit.pipeline.index import IndexReport, IndexRequest
    from credit.pipeline.workspace import Workspace
    from credit.valuation.layers import SkippedLayer


class _NumberOrWord(click.ParamType[int | str]):
    """A number, or the one word for no limit."""

    def __init__(self, word: str) -> None:
        self.name = f"N|{word}"
        self._word = word

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == self._word or isinstance(value, int):
            return value
        try:
            number = int(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {self._word!r}", param, ctx)
        return number


@click.command()
@click.argument("model", type=FILE)
@click.argument("data", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, help="Folder of the index.")
@click.option("--name", help="Name of the model in logs.  [default: the model's folder]")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="MODEL[:WEIGHT]",
    help="Further checkpoint or seed of the model: influence is the weighted mean. MODEL itself weighs 1.",
)
@click.option(
    "--rank",
    "ranks",
    multiple=True,
    metavar="[PATTERN:]RANK",
    help="Rank of the projections: 64, in=64,out=4096, '*.mlp.*:128'. May be repeated.  [default: 32, and a "
    "vocabulary in at most 8192 buckets]",
)
@click.option("--projection", type=click.Choice(["random", "pca"]), default="pca", show_default=True)
@click.option("--curvature", type=click.Choice(["none", "fisher", "ekfac"]), default="ekfac", show_default=True)
@click.option("--damping", default=3.0, show_default=True, help="Relative to the mean eigenvalue of each layer.")
@click.option(
    "--rows-per-group",
    type=_NumberOrWord("all"),
    default=32,
    show_default=True,
    help="Rows kept per collection; all keeps one for each example.",
)
@click.option(
    "--rows-dtype",
    type=click.Choice(["fp32", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Number format of the rows.",
)
@click.option(
    "--weighting",
    type=click.Choice(["none", "unit", "relatif"]),
    default="none",
    show_default=True,
    help="Divide each example by its norm, or by the root of its self-influence: tames outliers.",
)
@click.option(
    "--layers",
    multiple=True,
    metavar="PATTERN",
    help="Layers to watch: '*' is all, '*.mlp.*' some, '!*.0.*' leaves out.  [default: the output head]",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=2),
    help="Tokens of training data read in one pass; longer texts are read in windows. Outputs are read with all of the "
    "model's context.  [default: the model's, at most 2048]",
)
@click.option(
    "--example-length",
    type=_NumberOrWord("none"),
    default=256,
    show_default=True,
    help="Tokens of an example: each window is cut into several. 'none' keeps windows whole.",
)
@click.option("--sample", default=2048, show_default=True, help="Examples that pca and ekfac are fitted to.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random projections.")
@click.option(
    "--template-date",
    default="2024-07-26",
    show_default=True,
    metavar="YYYY-MM-DD",
    help="Date that a chat template takes for today in DATA. An output has its own.",
)
@dtype_option
@device_option
@engine_options("Units of the data at a time, each by a worker with a model of its own.")
@click.option("--slice", "part", metavar="I/N", help="Do a slice of the work, without a coordinator, in a job array.")
@click.option("--merge", is_flag=True, help="Make the index of what all slices have done.")
@click.option(
    "--tokens",
    type=FILE,
    metavar="DIR",
    help="Keep the tokenised DATA here, for other indexes of it, and use what is there.  [default: with the index, "
    "until it is finished]",
)
@training_options()
@click.option("--register/--no-register", default=True, show_default=True, help="Enter the index in the ledger.")
@click.option("--update", is_flag=True, help="Add DATA to the existing index; known data is skipped.")
@click.option("--withdraw", metavar="PROVIDER", help="Take a provider, whose data is in DATA, out of the index.")
@click.option(
    "--non-finite",
    type=click.Choice(["fail", "exclude"]),
    default="fail",
    show_default=True,
    help="Treatment of an example whose gradient is not finite.",
)
@click.option("--dry-run", is_flag=True, help="Print the time, memory and disk it would take; write nothing.")
@click.option("--strict", is_flag=True, help="Index nothing if any record is bad.")
@ledger_options
@click.pass_context
def index(
    ctx: click.Context,
    workspace: Workspace,
    model: Path,
    data: tuple[Path, ...],
    out: Path,
    name: str | None,
    checkpoints: tuple[str, ...],
    ranks: tuple[str, ...],
    projection: str,
    curvature: str,
    damping: float,
    rows_per_group: int | str,
    rows_dtype: str,
    weighting: str,
    layers: tuple[str, ...],
    max_length: int | None,
    example_length: int | str,
    sample: int,
    seed: int,
    template_date: str,
    dtype: str,
    device: str,
    engine: EngineChoice,
    part: str | None,
    merge: bool,
    tokens: Path | None,
    source: TrainingSource,
    register: bool,
    update: bool,
    withdraw: str | None,
    non_finite: str,
    dry_run: bool,
    strict: bool,
) -> None:
    """Build the attribution index of a MODEL from its tagged training DATA.

    MODEL is a folder in Hugging Face layout. DATA are JSON Lines, CSV or Parquet files, saved data sets or folders of
    texts, with the fields id, provider and text (or prompt and completion, or messages), and optionally collection. A
    record by several providers has splits in place of provider: [{"provider": "anna", "share": 0.7}, ...]. Forms of
    other tools are in docs/training-data.md.

    The command first estimates time, memory and disk from a batch or two, and refuses what cannot fit. Repeated after
    an interruption, it resumes the build; a finished index it leaves alone.

    The work is cut into units, and --engine says who does them. A worker has one thread, or as many as OMP_NUM_THREADS
    says: then neither their number nor the engine changes a byte. In a job array, each job does a --slice in the same
    --out, in any order and again if need be, and a last one does --merge. That names what is missing or spoiled, and
    exits with 3. DATA is tokenised once, by the first job.

    \b
    Example: credit index models/my-llm train.jsonl --out my-index --name my-llm --dry-run
             credit index models/my-llm train.jsonl --out my-index --name my-llm
             credit index models/my-llm train.jsonl --out my-index --engine ray --address auto
             credit index models/my-llm train.jsonl --out my-index --slice 2/8
             credit index models/my-llm train.jsonl --out my-index --merge
             credit index models/my-llm new.jsonl --out my-index --update
    """
    if update and withdraw is not None:
        raise click.UsageError("--update and --withdraw are two runs")
    from credit.engines import Slice
    from credit.pipeline.index import IndexRequest
    from credit.valuation import IndexSettings

    rank, rules = _split_ranks(ranks)
    settings = IndexSettings(
        rank=rank,
        ranks=rules,
        projection=projection,
        curvature=curvature,
        damping=damping,
        rows_per_group=None if isinstance(rows_per_group, str) else rows_per_group,
        rows_dtype=rows_dtype,
        weighting=weighting,
        layers=layers,
        max_length=max_length,
        example_length=None if isinstance(example_length, str) else example_length,
        sample=sample,
        seed=seed,
        template_date=template_date,
    )
    request = IndexRequest(
        model=model,
        data=data,
        out=out,
        name=name or model.resolve().name,
        settings=settings,
        dtype=dtype,
        device=device,
        source=source,
        register=register,
        strict=strict,
        checkpoints=_parse_checkpoints(checkpoints, changing=update or withdraw is not None),
        exclude_non_finite=non_finite == "exclude",
        update=update,
        withdraw=withdraw,
        given=_given(ctx),
        engine=engine,
        part=None if part is None else Slice.read(part),
        merge=merge,
        tokens=tokens,
    )
    if dry_run:
        _say_plan(workspace, request)
    elif request.part is not None:
        _slice(workspace, request, request.part)
    else:
        _build(workspace, request)


def _build(workspace: Workspace, request: IndexRequest) -> None:
    """Build or change the index, with its needs before and its progress meanwhile, and print it."""
    from credit.pipeline.index import index_training_data

    with progress_bar("indexing", "tokens") as bar:
        report = index_training_data(
            workspace,
            replace(request, engine=request.engine.watched(bar.workers)),
            lambda _phase, done, total: bar(done, total),
            lambda needs: warn(f"the index needs {needs}"),
        )
    warn(*report.notices, *report.problems)
    _say_report(request, report)


def _slice(workspace: Workspace, request: IndexRequest, part: Slice) -> None:
    """Do a slice of the work, and print it."""
    from credit.pipeline.index import index_slice

    with progress_bar(f"slice {part}", "tokens") as bar:
        watched = replace(request, engine=request.engine.watched(bar.workers))
        report = index_slice(workspace, watched, part, lambda _phase, done, total: bar(done, total))
    warn(*report.notices, *report.problems)
    facts = {"out": request.out, "slice": str(part), "units": report.units}
    done = f"{request.out}: slice {part} is done, {counted(report.units, 'unit')}"
    say(facts, f"{done}; once all slices are, give the same command --merge instead")


def _say_report(request: IndexRequest, report: IndexReport) -> None:
    """Print the finished index."""
    manifest = report.manifest
    rows = sum(group.stop - group.start for group in manifest.groups)
    watched = 1 - sum(layer.share for layer in manifest.skipped)
    changed = request.update or request.withdraw is not None
    verb = "was there already" if report.existed else "revised" if changed else "built"
    counts = _counts(manifest.examples, manifest.tokens, len(manifest.groups), rows)
    layers = manifest.layers[0].name if len(manifest.layers) == 1 else f"{len(manifest.layers)} layers"
    lines = [
        f"{request.out}: {verb}; model {manifest.name}, {counts}",
        f"watched: {layers}, {watched:.0%} of the parameters; left out: {_in_words(manifest.skipped)}",
    ]
    if manifest.checkpoints:
        lines.append(f"checkpoints: {len(manifest.checkpoints)} beside the model")
    excluded = [example.id for example in manifest.excluded]
    if excluded:
        lines.append(f"excluded, because their gradient is not finite: {', '.join(excluded)}")
    if report.quarantine_file:
        lines.append(f"{counted(report.quarantined, 'record')} quarantined in {report.quarantine_file}")
    facts = {
        "out": request.out,
        "name": manifest.name,
        "existed": report.existed,
        "fingerprint": manifest.fingerprint,
        "examples": manifest.examples,
        "groups": len(manifest.groups),
        "rows": rows,
        "excluded": excluded,
        "checkpoints": [member.weight for member in manifest.checkpoints],
        "quarantined": report.quarantined,
        "quarantine_file": report.quarantine_file,
    }
    say(facts, *lines, exit_code=EXIT_PARTIAL if report.quarantined or excluded else 0)


def _counts(examples: int, tokens: int, groups: int, rows: int) -> str:
    counts = {"example": examples, "token": tokens, "group": groups, "row": rows}
    return ", ".join(counted(count, noun) for noun, count in counts.items())


def _say_plan(workspace: Workspace, request: IndexRequest) -> None:
    """Print the records, size and needs of a build without making it."""
    from dataclasses import asdict

    from credit.pipeline.index import plan_training_data

    plan = plan_training_data(workspace, request)
    warn(*plan.notices, *plan.problems)
    build = plan.build
    counts = _counts(build.examples, build.tokens, build.groups, build.rows)
    verb = (
        "would be built" if build.changing is None else f"would be revised, by {counted(build.changing, 'example')}, to"
    )
    if build.existed:
        verb = "is there already" if build.changing is None else "would stay as it is"
    records: Counter[str] = Counter()
    for group, count in plan.counts.records_by_group.items():
        records[group.provider] += count
    lines = [f"{request.out} {verb}: {counts}"]
    lines.append(f"records: {', '.join(f'{provider} {count}' for provider, count in records.items())}")
    if plan.counts.quarantined:
        lines.append(f"{counted(plan.counts.quarantined, 'record')} would be quarantined")
    kept = f"nothing but tokens was written, in {request.tokens}" if request.tokens else "nothing was written"
    lines += [f"the index needs {build.needs}", f"dry run: {kept}"]
    facts = asdict(build) | {
        "memory_bytes": build.needs.memory_bytes,
        "records": records,
        "quarantined": plan.counts.quarantined,
        "problems": plan.problems,
    }
    say(facts, *lines, exit_code=EXIT_PARTIAL if plan.counts.quarantined else 0)


def _given(ctx: click.Context) -> frozenset[str]:
    """Return the fields of `IndexSettings` with a typed option, without those left at their defaults."""
    # A change of an index refuses other settings, and a default is no wish of the caller.
    typed = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    return frozenset(typed | {"rank"} if "ranks" in typed else typed)


def _parse_checkpoints(texts: Sequence[str], *, changing: bool) -> list[tuple[Path, float]]:
    """Return the folder and the weight of each checkpoint; a change of an index takes no weights."""
    named = [_parse_checkpoint(text) for text in texts]
    if changing and any(weight != 1 for _, weight in named):
        raise click.UsageError(
            "--update and --withdraw change every checkpoint of the index, and no weight; --checkpoint DIR gives the"
            " new place of one that was moved"
        )
    return named


def _parse_checkpoint(text: str) -> tuple[Path, float]:
    """Read MODEL or MODEL:WEIGHT. An existing folder with a colon in its name is a MODEL."""
    folder, colon, weight = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return Path(text), 1.0
    try:
        return Path(folder), float(weight)
    except ValueError as error:
        raise click.UsageError(
            f"--checkpoint takes MODEL or MODEL:WEIGHT, such as runs/step-500:0.5, not {text!r}"
        ) from error


def _split_ranks(ranks: tuple[str, ...], rank: int = 32) -> tuple[int, tuple[str, ...]]:
    """Return the rank of all layers, and the rules after it."""
    for number, rule in enumerate(ranks):
        if not rule.isdecimal():
            return rank, ranks[number:]
        rank = int(rule)
    return rank, ()


def _in_words(skipped: Sequence[SkippedLayer], most: int = 3) -> str:
    """Name the largest unwatched layers; the manifest names all."""
    ranked = sorted(skipped, key=lambda layer: -layer.share)
    named = [f"{layer.name} ({layer.share:.1%})" for layer in ranked[:most]]
    if len(ranked) > most:
        named.append(f"{len(ranked) - most} more ({sum(layer.share for layer in ranked[most:]):.1%})")
    return ", ".join(named) or "nothing"
