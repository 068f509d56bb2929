"""The demo from beginning to end: data, model, logs, and then the commands as a user would type them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from credit.demo.corpus import KILOBYTES, OWN, Corpus, SourceFile, collect
from credit.errors import CreditError, InputError
from credit.records import HOUSE, MICRO
from credit.storage import make_folder
from credit.version import VERSION

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

SEED = 7
MODEL_NAME = "demo-lm"
CURRENCY = "USD"
POOLS = (("2026-01", "1000.00"), ("2026-02", "1500.00"))
"""Months of the logs with the money to distribute in each; both are in the past."""

_UNVALIDATED = "demonstration: nobody is paid by it"
_MARKER = "demo.json"
_EARLIER = "model-earlier"
"""Folder of the model as it was after a third of its training."""
_PROMPTS_PER_FILE = 2
_PROMPT_CHARACTERS = 320
_CONTINUATION_CHARACTERS = 240
_NEW_TOKENS = 64

Say = Callable[[str], None]
Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]
"""Progress bar, made from a description and a unit; it yields `update(done, total)`."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of a held-back file: the prompt for the model, and the file's true continuation."""

    provider: str
    prompt: str
    continuation: str


@dataclass(frozen=True, slots=True)
class DemoLine:
    """A line of the demo's closing table; `outputs` counts the outputs with this provider in the first place."""

    provider: str
    outputs: int
    effect: float
    credit_micro: int
    payout: str


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The demo's result: `hits` of `checked` true continuations credited their own source most."""

    lines: tuple[DemoLine, ...]
    hits: int
    checked: int


def run_demo(folder: Path, say: Say, bar: Bar, *, kilobytes: int = KILOBYTES) -> DemoResult:
    """Run the demo and leave everything it makes in `folder`.

    A model that an earlier run trained on the same data is kept; all else starts clean.

    Raises:
        InputError: the folder holds files, and no demo.
        CreditError: a command failed.
    """
    corpus = collect(SEED, kilobytes)
    fingerprint = _fingerprint(corpus)
    kept = _prepare(folder, fingerprint)
    say(
        f"Resuming in {folder}/: the model trained by an earlier run is kept, the rest starts clean."
        if kept
        else f"Starting clean in {folder}/."
    )
    _write_inputs(folder, corpus)
    for contributor in corpus.contributors:
        files = [file for file in corpus.train if file.provider == contributor.key]
        size = sum(len(file.text) for file in files)
        say(
            f"  {contributor.key:<13}{len(files):>3} files {size / 1000:>5.0f} kB   {contributor.name} "
            f"{contributor.version}, {contributor.license}, {contributor.authors}"
        )
    if not kept:
        _train(folder, corpus, say, bar)
        (folder / _MARKER).write_text(json.dumps({"trained": fingerprint}))
    _commands(folder, say)
    return _result(folder)


def _fingerprint(corpus: Corpus) -> str:
    texts = [(file.id, file.text) for file in (*corpus.train, *corpus.held_back)]
    training = (Path(__file__).parent / "training.py").read_text(encoding="utf-8")
    return hashlib.sha256(json.dumps([VERSION, SEED, texts, training]).encode()).hexdigest()


def _prepare(folder: Path, fingerprint: str) -> bool:
    """Empty the folder of an earlier demo; return True if its model is kept."""
    marker = folder / _MARKER
    if folder.is_dir() and any(folder.iterdir()) and not marker.is_file():
        raise InputError(f"{folder} is not empty and holds no demo; choose another folder: credit demo --out FOLDER")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose another folder: credit demo --out FOLDER")
    kept = False
    if marker.is_file():
        kept = json.loads(marker.read_text()).get("trained") == fingerprint
        for path in folder.iterdir():
            if path == marker or (kept and path.name in {"model", _EARLIER, "logs", "origins.json"}):
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    make_folder(folder)
    if not kept:
        marker.write_text("{}")
    return kept


def _write_inputs(folder: Path, corpus: Corpus) -> None:
    with (folder / "training-data.jsonl").open("w", encoding="utf-8") as file:
        for source in corpus.train:
            record = {
                "id": source.id,
                "provider": source.provider,
                "collection": source.collection,
                "text": source.text,
            }
            file.write(json.dumps(record) + "\n")
    with (folder / "providers.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "name", "kind", "currency", "minimum_payout"])
        for number, contributor in enumerate(corpus.contributors):
            terms = [CURRENCY, "200.00"] if number == len(corpus.contributors) - 2 else ["", ""]
            writer.writerow([contributor.key, contributor.name, contributor.kind, *terms])


def _train(folder: Path, corpus: Corpus, say: Say, bar: Bar) -> None:
    """Train the model and log its answers to prompts from files that it has not seen."""
    from credit.demo import training

    texts = [file.text for file in corpus.train]
    say(f"\nTraining a tokenizer and a small Llama from scratch on {sum(map(len, texts)) / 1e6:.2f} MB ...")
    tokenizer = training.train_tokenizer(texts)
    with bar("  training", "steps") as update:

        def step_done(step: int, steps: int, loss: float) -> None:
            if step in (1, steps) or step % (steps // 10) == 0:
                say(f"  step {step:>4}/{steps}  loss {loss:.2f} nats per token")
            update(step, steps)

        def save_checkpoint(model: LlamaForCausalLM) -> None:
            training.save(model, tokenizer, folder / _EARLIER)

        model = training.train_model(texts, tokenizer, SEED, step_done, save_checkpoint)
    training.save(model, tokenizer, folder / "model")
    say("The model now continues prompts from files it has not seen ...")
    passages = list(_passages(corpus.held_back))
    with bar("  writing", "answers") as update:
        answers = training.complete(model, tokenizer, [item.prompt for item in passages], _NEW_TOKENS, SEED, update)
    _write_logs(folder, passages, answers)


def _write_logs(folder: Path, passages: Sequence[Passage], answers: Sequence[str]) -> None:
    """Log every answer of the model, and beside it the true continuation with its origin."""
    origins: dict[str, str] = {}
    logs: dict[str, list[dict[str, str]]] = {period: [] for period, _ in POOLS}
    for number, (passage, answer) in enumerate(zip(passages, answers, strict=True)):
        period = POOLS[number % len(POOLS)][0]
        day = f"{period}-{1 + number // len(POOLS) % 28:02d}T12:00:00Z"
        for kind, text in (("model", answer), ("true", passage.continuation)):
            if text.strip():
                # A number, as a service gives one: an id in a provider's export must say nothing about others.
                record = {"id": f"{number + 1:03d}-{kind}", "occurred_at": day, "model": MODEL_NAME}
                logs[period].append(record | {"prompt": passage.prompt, "completion": text})
        origins[f"{number + 1:03d}-true"] = passage.provider
    make_folder(folder / "logs")
    for period, records in logs.items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / "logs" / f"{period}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "origins.json").write_text(json.dumps(origins, indent=1))


def _passages(files: Sequence[SourceFile]) -> Iterator[Passage]:
    """Yield passages of held-back files that begin with a line, the same for the same files."""
    for file in files:
        rng = random.Random(f"{SEED}/{file.id}")  # noqa: S311  # a selection, not a secret
        room = len(file.text) - _PROMPT_CHARACTERS - _CONTINUATION_CHARACTERS
        for _ in range(_PROMPTS_PER_FILE):
            low = rng.randrange(max(room, 1))
            low = file.text.rfind("\n", 0, low + 1) + 1
            middle = low + _PROMPT_CHARACTERS
            continuation = file.text[middle : middle + _CONTINUATION_CHARACTERS]
            if continuation.strip():
                yield Passage(file.provider, file.text[low:middle], continuation)


def _commands(folder: Path, say: Say) -> None:
    """Run the commands in a user's order."""

    def credit(*arguments: str) -> None:
        say(f"\n$ credit {shlex.join(arguments)}")
        _credit(folder, arguments)

    credit("init")
    credit("providers", "import", "providers.csv")
    credit("index", "model", "training-data.jsonl", "--out", "index", "--name", MODEL_NAME)
    for command in (("overlap",), ("membership", "model", _EARLIER)):
        credit(*command, "training-data.jsonl", "--register", "index")
    credit("ingest-outputs", *(f"logs/{period}.jsonl" for period, _ in POOLS))
    credit("compute")
    for period, amount in POOLS:
        credit("pool", "add", period, amount, CURRENCY)
        credit("close", period, "--unvalidated", _UNVALIDATED)
    for period, _ in POOLS:
        credit("report", "attribution", period)
        credit("report", "payouts", period)
        credit("export", period, "--out", f"export-{period}")


def _credit(folder: Path, arguments: Sequence[str], *, capture: bool = False) -> str:
    """Run a `credit` command in the folder; print its output, or return it if `capture` is set."""
    sys.stdout.flush()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CREDIT_")}
    done = subprocess.run(  # noqa: S603  # our own program with our own arguments
        [sys.executable, "-m", "credit", *arguments],
        cwd=folder,
        env=environment,
        check=False,
        text=True,
        stdout=subprocess.PIPE if capture else None,
    )
    if done.returncode != 0:
        raise CreditError(f"credit {' '.join(arguments)} ended with exit code {done.returncode}; see above")
    return done.stdout or ""


def _result(folder: Path) -> DemoResult:
    effects: dict[str, float] = {}
    micro: dict[str, int] = {}
    led: dict[str, int] = {}
    paid: dict[str, Decimal] = {}
    origins: dict[str, str] = json.loads((folder / "origins.json").read_text())
    hits = checked = 0
    for period, _ in POOLS:
        by_output: dict[str, dict[str, int]] = {}
        for row in _report(folder, "attribution", period, "--by", "output"):
            provider = row["provider"]
            effects[provider] = effects.get(provider, 0.0) + row["effect"]
            micro[provider] = micro.get(provider, 0) + row["credit_micro"]
            earned = by_output.setdefault(row["output_id"], {})
            earned[provider] = earned.get(provider, 0) + row["credit_micro"]
        for output, earned in by_output.items():
            leader = max(sorted(earned), key=earned.__getitem__)
            led[leader] = led.get(leader, 0) + 1
            if output in origins:
                checked += 1
                hits += origins[output] == leader
        for row in _report(folder, "payouts", period):
            paid[row["provider"]] = paid.get(row["provider"], Decimal(0)) + Decimal(row["payable"])
    payouts = {key: f"{amount} {CURRENCY}" for key, amount in paid.items()}
    payouts |= dict.fromkeys((OWN, HOUSE), "to the house")
    lines = [
        DemoLine(key, led.get(key, 0), effects[key], micro[key], payouts.get(key, ""))
        for key in sorted(micro, key=lambda key: -micro[key])
    ]
    return DemoResult(tuple(lines), hits, checked)


def _report(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(_credit(folder, ["report", *arguments, "--format", "json"], capture=True))
    return rows


def share(line: DemoLine, lines: Sequence[DemoLine]) -> float:
    """Return a line's share of all credits, 0 to 1."""
    return line.credit_micro / max(sum(other.credit_micro for other in lines), MICRO)
