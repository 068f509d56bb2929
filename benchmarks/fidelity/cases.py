"""Cases of the laboratory: real text by several providers, a recipe, and outputs with their log-likelihoods.

Every case takes its text from Python distributions that the project's own environment holds, so that nothing is
fetched. Outputs are true continuations of files, or of documentation, that no retraining has seen.
"""

from __future__ import annotations

import ast
import importlib.util
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from credit.demo.corpus import DISTRIBUTIONS, collect
from credit.demo.training import save, train_tokenizer
from credit.fidelity.recipes import Recipe
from credit.records import Group, LoggedOutput, TrainingRecord
from tests.smollm2 import smollm2

SEED = 11
_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
_SOURCES = (*DISTRIBUTIONS, "urllib3")
_PROSE = ("torch", "transformers", "sqlalchemy", "polars", "networkx", "sympy", "mypy", "numpy")
_PROSE_BASE = ("pydantic", "hypothesis", "rich", "click", "alembic", "huggingface_hub", "jinja2", "beancount")


@dataclass(frozen=True, slots=True)
class Size:
    """How much of a case is made.

    Attributes:
        characters: of training text of the largest provider; the smallest has a third of it.
        outputs: watched outputs.
        halves: random halves of the providers that are retrained, each with two seeds.
        seeds: retrainings on everything, and without each provider.
    """

    characters: int
    outputs: int
    halves: int
    seeds: int = 2


@dataclass(frozen=True, slots=True)
class Case:
    """Providers' records, outputs, and how a model is made of the one to say the other."""

    name: str
    text: str
    records: Sequence[TrainingRecord]
    outputs: Sequence[LoggedOutput]
    recipe: Recipe
    size: Size


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of text of a provider."""

    id: str
    provider: str
    text: str


def packages(work: Path, size: Size) -> Case:
    """Source files of eight distributions; a small Llama from scratch, fixed epochs: less data is less training."""
    return _packages("packages", work, size, hidden=96, layers=3)


def quick(work: Path, size: Size) -> Case:
    """The case `packages` in small, for tests: a minute or two."""
    return _packages("quick", work, size, hidden=48, layers=2)


def _packages(name: str, work: Path, size: Size, *, hidden: int, layers: int) -> Case:
    corpus = collect(SEED, keys=_SOURCES)
    train = [Document(file.id, file.provider, file.text) for file in corpus.train]
    held = [Document(file.id, file.provider, file.text) for file in corpus.held_back]
    records = _records(train, size.characters)
    return Case(
        name,
        f"Sources of 8 Python distributions; a Llama of width {hidden} with {layers} layers from scratch, 4 epochs",
        records,
        _outputs(held, size.outputs, prompt=160, continuation=120),
        Recipe(_small_model(work / "start", [r.completion for r in records], hidden=hidden, layers=layers), epochs=4.0),
        size,
    )


def prose(work: Path, size: Size) -> Case:
    """Documentation strings of eight distributions; a small Llama that has read others', fixed steps."""
    documents = [document for name in _PROSE for document in _docstrings(name)]
    held = [d for d in documents if _chance(d.id) < 0.12]
    records = _records([d for d in documents if _chance(d.id) >= 0.12], size.characters)
    base = _prose_base(work)
    return Case(
        "prose",
        "Documentation strings of 8 Python distributions; a Llama of width 128 with 4 layers, trained on the "
        "documentation of 8 others, fine-tuned for 60 steps",
        records,
        _outputs(held, size.outputs, prompt=160, continuation=120),
        Recipe(base, scratch=False, steps=60, learning_rate=1e-3),
        size,
    )


def pretrained(work: Path, size: Size) -> Case:
    """Sources of six distributions; SmolLM2-135M fine-tuned for fixed steps, and asked for what it was tuned on."""
    base = packages(work, size)
    left = {"urllib3", "rich"}
    records = [record for record in base.records if record.group.provider not in left]
    seen = [Document(record.id, record.group.provider, record.completion) for record in records]
    return Case(
        "pretrained",
        "Sources of 6 Python distributions; SmolLM2-135M fine-tuned for 9 steps; outputs quote what it was tuned on",
        records,
        _outputs(seen, size.outputs, prompt=160, continuation=120),
        Recipe(smollm2(), scratch=False, steps=9, learning_rate=1e-4, batch_tokens=512, max_length=96),
        size,
    )


CASES: dict[str, tuple[Callable[[Path, Size], Case], Size]] = {
    "packages": (packages, Size(42_000, 64, 32)),
    "prose": (prose, Size(42_000, 64, 32)),
    "pretrained": (pretrained, Size(4_000, 24, 16, seeds=1)),
    "quick": (quick, Size(16_000, 48, 6, seeds=1)),
}
"""Each case with the size at which its results are reported."""


def _records(documents: Sequence[Document], characters: int) -> list[TrainingRecord]:
    """Cut every provider's documents off at its size: the providers' sizes are evenly spaced from a third to all."""
    providers = sorted({document.provider for document in documents})
    order = sorted(providers, key=_chance)
    low = characters / 3
    room = {p: low + (characters - low) * i / (len(order) - 1) for i, p in enumerate(order)}
    records = []
    for document in documents:
        text = document.text[: int(room[document.provider])]
        if len(text) >= 40:
            room[document.provider] -= len(text)
            records.append(TrainingRecord(document.id, Group(document.provider), text))
    return records


def _outputs(held: Sequence[Document], count: int, *, prompt: int, continuation: int) -> list[LoggedOutput]:
    """Draw continuations from held-back documents, as many of every provider."""
    providers = sorted({document.provider for document in held})
    cuts: dict[str, list[LoggedOutput]] = {provider: [] for provider in providers}
    for document in sorted(held, key=lambda d: _chance(f"order/{d.id}")):
        for number in range(8):
            rng = random.Random(f"{SEED}/{document.id}/{number}")  # a selection, not a secret
            low = rng.randrange(max(len(document.text) - prompt - continuation, 1))
            low = document.text.rfind("\n", 0, low + 1) + 1
            middle, end = low + prompt, low + prompt + continuation
            said = document.text[middle:end]
            if len(said.strip()) > continuation // 2:
                name = f"{document.provider}/{document.id}:{number}"
                output = LoggedOutput("own", name, _MOMENT, "lab", said, document.text[low:middle])
                cuts[document.provider].append(output)
    each = count // len(providers)
    return [output for provider in providers for output in cuts[provider][:each]]


def _docstrings(package: str) -> Iterator[Document]:
    """Documentation strings of a package's modules, in order of a hash, until there is enough of them."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the case needs the installed sources of {package}; set up with: make test")
    root = Path(next(iter(spec.submodule_search_locations)))
    paths = [p for p in root.rglob("*.py") if not {"test", "tests", "testing", "_resources"} & set(p.parts)]
    size = 0
    for path in sorted(paths, key=lambda p: _chance(p.relative_to(root).as_posix())):
        inside = path.relative_to(root).as_posix()
        for name, text in _module_docstrings(path):
            yield Document(f"{package}/{inside}:{name}", package, text)
            size += len(text)
        if size > 150_000:
            return


def _module_docstrings(path: Path) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text and len(text) > 300:
                yield f"{getattr(node, 'name', 'module')}@{getattr(node, 'lineno', 0)}", text


def _small_model(folder: Path, texts: Sequence[str], *, hidden: int, layers: int) -> Path:
    """A tokenizer of these texts and a Llama with weights from a seed."""
    if not (folder / "tokenizer.json").is_file():
        tokenizer = train_tokenizer(texts)
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=hidden,
                intermediate_size=hidden * 8 // 3,
                num_hidden_layers=layers,
                num_attention_heads=4,
                max_position_embeddings=256,
                tie_word_embeddings=True,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
        save(model, tokenizer, folder)
    return folder


def _prose_base(work: Path) -> Path:
    """A small Llama trained on the documentation of other distributions."""
    base = work / "base"
    if not (base / "tokenizer.json").is_file():
        documents = [document for name in _PROSE_BASE for document in _docstrings(name)]
        records = [TrainingRecord(d.id, Group(d.provider), d.text) for d in documents]
        start = _small_model(work / "start", [record.completion for record in records], hidden=128, layers=4)
        Recipe(start, epochs=3.0).train(records, 0, base)
    return base


def held_out_prose(characters: int) -> list[Document]:
    """Return documentation from outside the case `packages`."""
    documents = []
    for document in _docstrings("networkx"):
        if characters > 0:
            documents.append(document)
            characters -= len(document.text)
    return documents


def _chance(text: str) -> float:
    """Return a number in [0, 1) drawn from a text."""
    return random.Random(f"{SEED}/{text}").random()  # a selection, not a secret
