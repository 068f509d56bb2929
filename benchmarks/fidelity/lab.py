"""How well the engine's choices predict retraining.

One case, one command:

    python benchmarks/fidelity/lab.py --work /tmp/lab [--quick]

Case `packages`: eight installed Python distributions as providers, a small Llama trained from scratch on them for a
fixed number of epochs, outputs that are true continuations of files held back. Retrainings are kept in the work
folder: run again, only new ones are made. Prints a table and writes reports/fidelity/packages.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from credit.demo.corpus import collect
from credit.demo.run import _cuts
from credit.demo.training import train_tokenizer
from credit.fidelity.counterfactuals import plan
from credit.fidelity.retrain import Laboratory, Recipe
from credit.fidelity.validate import Certificate, MethodScore, validate
from credit.records import Group, LoggedOutput, TrainingRecord
from credit.valuation import AttributionIndex, IndexSettings, build_index, load_model

ROOT = Path(__file__).parent.parent.parent
SEED = 11


@dataclass(frozen=True)
class Size:
    """How large the case is."""

    characters: int
    hidden: int
    layers: int
    epochs: float
    halves: int
    outputs: int


FULL = Size(40_000, 96, 3, 4.0, 12, 64)
QUICK = Size(12_000, 48, 2, 3.0, 4, 24)

VARIANTS = {
    "random r16 fisher": IndexSettings(rank=16),
    "random r32 fisher": IndexSettings(rank=32),
    "pca r16 fisher": IndexSettings(rank=16, projection="pca"),
    "whitened r16": IndexSettings(rank=16, projection="whitened", curvature="none"),
    "whitened r32": IndexSettings(rank=32, projection="whitened", curvature="none"),
    "whitened r64": IndexSettings(rank=64, projection="whitened", curvature="none"),
    "random r32 ekfac": IndexSettings(rank=32, curvature="ekfac"),
    "whitened r32 ekfac": IndexSettings(rank=32, projection="whitened", curvature="ekfac"),
    "pca r32 ekfac": IndexSettings(rank=32, projection="pca", curvature="ekfac"),
    "full-rank ekfac": IndexSettings(rank=10_000, curvature="ekfac"),
}


def case(work: Path, size: Size) -> tuple[list[TrainingRecord], list[LoggedOutput], Path]:
    """Return training records, outputs and the folder of the model."""
    corpus = collect(SEED)
    records = []
    texts: dict[str, int] = {}
    for file in corpus.train:
        room = size.characters - texts.get(file.provider, 0)
        if room <= 0:
            continue
        text = file.text[:room]
        texts[file.provider] = texts.get(file.provider, 0) + len(text)
        records.append(TrainingRecord(file.id, Group(file.provider), text))
    cuts = list(_cuts(corpus.held_back))[: size.outputs]
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    outputs = [LoggedOutput("own", cut.id, moment, "lab", cut.continuation, cut.prompt) for cut in cuts]
    start = work / "start"
    if not (start / "config.json").is_file():
        tokenizer = train_tokenizer([record.completion for record in records])
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=size.hidden,
                intermediate_size=size.hidden * 8 // 3,
                num_hidden_layers=size.layers,
                num_attention_heads=4,
                max_position_embeddings=256,
                tie_word_embeddings=True,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
        model.save_pretrained(start)
        tokenizer.save_pretrained(start)
    return records, outputs, start


def run(work: Path, size: Size, variants: dict[str, IndexSettings]) -> list[tuple[str, Certificate]]:
    """Validate every variant on the same retrainings."""
    records, outputs, start = case(work, size)
    recipe = Recipe(start, epochs=size.epochs)
    fingerprint = recipe.fingerprint(load_model(start).model_sha256)
    laboratory = Laboratory(work / "runs", records, outputs, recipe.train, fingerprint, 256)
    providers = sorted({record.group.provider for record in records})
    runs = plan(providers, halves=size.halves, seeds=2)
    for number, counterfactual in enumerate(runs, start=1):
        laboratory.outcome(counterfactual)
        print(f"\rretrainings {number}/{len(runs)}", end="", file=sys.stderr, flush=True)
    trained = work / "trained"
    if not (trained / "config.json").is_file():
        recipe.train(records, 0, trained)
    model = load_model(trained)
    results = []
    for name, settings in variants.items():
        folder = work / "index"
        shutil.rmtree(folder, ignore_errors=True)
        build_index(model, records, folder, settings, name="lab")
        index = AttributionIndex.open(folder)
        made = validate(index, model, records, outputs, laboratory, recipe=fingerprint, halves=size.halves, seeds=2)
        results.append((name, made))
        print(f"\r{name:<30}", file=sys.stderr)
        for score in results[-1][1].methods[:4]:
            print(line(name, score), flush=True)
    return results


def line(variant: str, score: MethodScore) -> str:
    """One row of the table."""
    cells = [score.lds, score.lds_given_size, score.pearson, score.spearman, score.top_one, score.share_error]
    numbers = " | ".join("-" if cell is None else f"{cell.value:.2f}" for cell in cells)
    return f"| {variant} | {score.method} | {numbers} |"


def report(results: list[tuple[str, Certificate]], size: Size) -> str:
    """The table in Markdown."""
    first = results[0][1]
    lines = [
        "# Fidelity: packages",
        "",
        f"{len(first.providers)} providers, {size.characters} characters each; a Llama of width {size.hidden} with",
        f"{size.layers} layers from scratch, {size.epochs:g} epochs; {first.outputs} outputs,",
        f"{first.retrainings} retrainings.",
        f"Noise ceiling of LDS {first.ceiling.value:.2f} ({first.ceiling.low:.2f} to {first.ceiling.high:.2f}).",
        "",
        "| index | measure | LDS | given size | LOO Pearson | LOO Spearman | top-1 | share error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, (name, certificate) in enumerate(results):
        for score in certificate.methods:
            own = "effect" in score.method or score.method in {"influence", "support"}
            if own or number == 0:
                lines.append(line(name if own else "none", score))
    lines.append("")
    for name, certificate in results:
        fit = certificate.calibration
        weights = f"α {fit.alpha:.2f}, β {fit.beta:.2f}, γ {fit.gamma:.3f}"
        lines.append(f"- {name}: {weights}; measured over predicted nats, cross-fitted, {fit.ratio:.2f}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for retrainings, kept between runs")
    parser.add_argument("--quick", action="store_true", help="a small case, in a few minutes")
    parser.add_argument("--only", action="append", help="names of variants")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    chosen = {k: v for k, v in VARIANTS.items() if not arguments.only or k in arguments.only}
    np.set_printoptions(precision=3)
    results = run(arguments.work, size, chosen)
    text = report(results, size)
    print(text)
    if not arguments.quick and not arguments.only:
        target = ROOT / "reports" / "fidelity" / "packages.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
