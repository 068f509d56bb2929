"""`credit compute`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from credit.cli.options import (
    FILE,
    device_option,
    dtype_option,
    engine_options,
    ledger_options,
    models_option,
    policy_options,
)
from credit.cli.printing import progress_bar, say, warn
from credit.errors import EXIT_PARTIAL
from credit.text import counted

if TYPE_CHECKING:
    from credit.engines import EngineChoice
    from credit.pipeline.compute import ComputeSettings
    from credit.pipeline.workspace import Workspace


@click.command()
@click.option(
    "--index",
    "index_dirs",
    type=FILE,
    multiple=True,
    help="Index to value by, or its new place. May be repeated.  [default: the newest of each model]",
)
@models_option
@policy_options
@click.option(
    "--damping", type=click.FloatRange(min=0, min_open=True), help="Of the curvature.  [default: the index's]"
)
@click.option("--chunk", type=click.IntRange(min=1), default=256, show_default=True, help="Outputs posted in one step.")
@dtype_option
@device_option
@engine_options("Chunks valued at a time, each by a worker with a model of its own.")
@click.option(
    "--retain",
    envvar="CREDIT_RETAIN_DAYS",
    type=click.IntRange(1, 36_500),
    show_envvar=True,
    metavar="DAYS",
    help="Afterwards, delete texts of valued outputs older than this: see credit purge.  [default: keep all]",
)
@click.option("--dry-run", is_flag=True, help="Print the outputs, time and memory it would take; write nothing.")
@ledger_options
def compute(
    workspace: Workspace,
    index_dirs: tuple[Path, ...],
    models: tuple[Path, ...],
    policy: dict[str, Any],
    damping: float | None,
    chunk: int,
    dtype: str,
    device: str,
    engine: EngineChoice,
    retain: int | None,
    dry_run: bool,
) -> None:
    """Value the pending outputs, and post their credits.

    Each chunk is one atomic step: after an interruption, the next run resumes, and every output counts once.

    Unless you choose otherwise, outputs earn by --measure effect with a --noise-floor of 1, --basis output and
    --negative zero. The weights of effect are those of the index's certificate if it predicts better with them, else
    --alpha 1 --beta 1 --gamma 0. With --basis period or --negative net, each output gives credits by itself first,
    and the close of the period moves them to where the sums put them.

    Say what a contract means by "without this data": --counterfactual removed, the default, or replaced. Replaced earns
    by --measure influence unless you choose a measure or weights. A certificate must be of the same counterfactual.

    Parts of an output that repeat its prompt are not paid for (--echo 16). A close leaves out what one user repeats on
    a day (--repeats 1), or has beyond a day's limit (--user-cap 1000).

    Without --engine, this process values with all cores, or one GPU. A worker has one thread, or as many as
    OMP_NUM_THREADS says: then neither their number nor the engine changes a byte. Workers only value; this process
    alone writes to the ledger.

    Memory grows with --chunk: an index is read once for each chunk, and every output of a chunk has a number for each
    of its rows. What does not fit is refused, with a --chunk that does.

    \b
    Example: credit compute
             credit compute --dry-run --chunk 4096
             credit compute --engine local --workers 4
             credit compute --engine ray --address auto
    """
    from credit.accounting.amounts import amount_text
    from credit.accounting.credits import Policy
    from credit.pipeline.compute import ComputeSettings
    from credit.pipeline.compute import compute as run
    from credit.records import CREDIT

    settings = ComputeSettings(
        policy=Policy.chosen(damping=damping, **policy),
        calibrated=not policy.keys() & {"alpha", "beta", "gamma"},
        index_dirs=index_dirs,
        model_paths=models,
        dtype=dtype,
        device=device,
        chunk=chunk,
        engine=engine,
    )
    if dry_run:
        _say_plan(workspace, settings)
        return
    with progress_bar("valuing", "outputs") as bar:
        report = run(workspace, replace(settings, engine=engine.watched(bar.workers)), bar)
    warn(*report.shortened, *(f"not valued: {reason}" for reason in report.refused))
    done = (
        f"{counted(report.valued, 'output')} valued, {amount_text(report.credit_micro, CREDIT)} credits posted,"
        f" {counted(report.books, 'score book')}"
    )
    lines = [done if report.valued else "nothing to do"]
    if retain is not None:
        lines.append(_retained(workspace, retain))
    if report.refused:
        refused = counted(len(report.refused), "output")
        lines.append(f"{refused} cannot be valued, and hold up a close; take them out: credit outputs unvalue --help")
    say(report, *lines, exit_code=EXIT_PARTIAL if report.refused else 0)


def _say_plan(workspace: Workspace, settings: ComputeSettings) -> None:
    """Print what would be valued, and what it takes."""
    from credit.pipeline.compute_plan import plan_compute
    from credit.valuation.requirements import duration_in_words, size_in_words

    plans = plan_compute(workspace, settings)
    lines = []
    for plan in plans:
        lines.append(
            f"{plan.model}: {counted(plan.outputs, 'output')} in {counted(plan.steps, 'chunk')}, by {plan.index} "
            f"({counted(plan.groups, 'group')}, {counted(plan.rows, 'row')})"
        )
        each = size_in_words(plan.memory_bytes)
        memory = f"each worker needs {each} of memory beside its model"
        if plan.workers is not None:
            memory = f"{each} of memory beside the model"
            if plan.workers > 1:
                whole = size_in_words(plan.workers * plan.memory_bytes)
                memory = f"{whole} of memory beside the models, for {plan.workers} workers of {each}"
        time = duration_in_words(plan.seconds) + (" of one worker" if plan.workers is None else "")
        lines.append(
            f"  {time} on this machine, by {counted(plan.tried, 'output')} tried; {memory}; "
            f"{size_in_words(plan.read_bytes)} of rows are read for each chunk"
        )
    say({"models": plans}, *(lines or ["nothing to do"]), "dry run: nothing was written")


def _retained(workspace: Workspace, days: int) -> str:
    """Purge texts older than a number of days, and return a line about it."""
    from credit.cli.outputs import purged
    from credit.pipeline.purge import purge

    before, reason = datetime.now(UTC).date() - timedelta(days), f"texts are kept for {counted(days, 'day')}"
    found = purge(workspace, before, reason=reason, dry_run=True)
    # The files are cleaned only when there is something to clean: on a large ledger that takes minutes.
    return purged(purge(workspace, before, reason=reason) if found.outputs or found.quarantine_files else found)
