"""Explanation of a logged output: the training examples with the greatest influence on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from credit.accounting.credits import Policy
from credit.errors import InputError, LedgerError
from credit.ingest.training_source import AS_IT_IS, TrainingSource
from credit.ledger.indexes import indexes
from credit.ledger.outputs import output_called, valued_by, valuing_policy
from credit.pipeline.index import open_registered, read_indexed
from credit.pipeline.workspace import Workspace
from credit.records import LoggedOutput, TrainingRecord
from credit.valuation import IndexManifest, LanguageModel
from credit.valuation.explain import ExampleInfluence, explain_output
from credit.valuation.tokens import window_of

_SHOWN_CHARACTERS = 200
_PART = re.compile(r"(@\d+)?(#\d+)?$")


@dataclass(frozen=True, slots=True)
class OutputExplanation:
    """An output, and the examples with the greatest influence on it, in nats; `texts` quotes them, where known.

    Of its `tokens`, `echo_tokens` repeat the prompt in runs of the policy's length; they are not paid for.
    """

    output: LoggedOutput
    examples: tuple[ExampleInfluence, ...]
    texts: dict[str, str]
    tokens: int
    echo_tokens: int


def explain_logged_output(
    workspace: Workspace,
    name: str,
    data: Sequence[Path],
    *,
    providers: Sequence[str] = (),
    top: int = 10,
    model_paths: Sequence[Path] = (),
    device: str = "auto",
    source: TrainingSource = AS_IT_IS,
    progress: Callable[[int, int], None] | None = None,
) -> OutputExplanation:
    """Rank the training examples behind a logged output, by the index that valued it or else its model's newest.

    Args:
        workspace: the ledger.
        name: the output's name in reports.
        data: training data; needed for folded groups of the index, and to show texts.
        providers: look at the data of these only; empty is all.
        top: number of examples.
        model_paths: new places of the model and its checkpoints.
        device: `cpu`, `cuda`, ... or `auto`.
        source: how to read training data in another form.
        progress: called with the number of examples done, and of all.

    Raises:
        LedgerError: there is no such output, its text was purged, or the index is gone.
        InputError: data is needed and missing, or is incomplete.
        MismatchError: the data or model differs from the index's.
    """
    with workspace.open() as ledger, ledger.read() as conn:
        stored = output_called(conn, name)
        if stored is None:
            raise LedgerError(f"there is no output {name!r}; credit report attribution PERIOD --by output lists them")
        if stored.purged:
            raise LedgerError(
                f"the text of output {name!r} was purged, so its examples cannot be ranked again; its numbers stay: "
                f"credit report attribution {stored.output.occurred_at:%Y-%m} --by output"
            )
        found, valued = stored.output, valued_by(conn, stored.id)
        policy_json = valuing_policy(conn, stored.id)
        # An output is only logged of a model that has an index; the newest comes last.
        *_, registered = [index for index in indexes(conn) if index.model == found.model and valued in {None, index.id}]
    index = open_registered(registered)
    groups = [group for group in index.groups if not providers or group.provider in providers]
    if not groups:
        raise InputError(f"{', '.join(providers)} has no data in {index.folder}")
    model = index.load_model(*model_paths, device=device)
    records = read_indexed(workspace, data, source, index.manifest.encoder(model)) if data else None
    echo = (Policy() if policy_json is None else Policy.from_json(policy_json)).echo
    examples = explain_output(
        index, model, found, groups=groups, records=records, top=top, echo=echo, progress=progress
    )
    reading = model.encoder(index.output_length(model)).read_output(found, echo)
    texts = _texts(index.manifest, model, records or [], examples)
    return OutputExplanation(found, tuple(examples), texts, reading.predicted, reading.echo)


def _texts(
    manifest: IndexManifest,
    model: LanguageModel,
    records: Sequence[TrainingRecord],
    examples: Sequence[ExampleInfluence],
) -> dict[str, str]:
    """Return the beginning of each example, word for word from its record, by its id."""
    encoder = model.encoder(manifest.max_length, manifest.settings.template_date)
    asked = {example.id for example in examples}
    # A part of a record is called after it: `record#2`, `record@3` for a turn of a chat, `record[256:512]`.
    named = {_PART.sub("", window_of(example)) for example in asked} | asked
    texts = {}
    for record in records:
        if record.id in named:
            for name, passage in encoder.quotations(record, manifest.settings.example_length):
                if name in asked:
                    texts[name] = passage[:_SHOWN_CHARACTERS]
    return texts
