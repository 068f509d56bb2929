"""Recipes: ways to train a model on some records, from scratch, by fine-tuning, or by a function of the user's own."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from credit.errors import InvalidRequestError, ValuationError
from credit.records import TrainingRecord
from credit.storage import canonical_json
from credit.valuation.batches import make_batch
from credit.valuation.language_model import load_model, without_progress_bars
from credit.valuation.losses import sequence_losses
from credit.valuation.placement import check_whole
from credit.valuation.tokens import Window
from credit.version import VERSION

if TYPE_CHECKING:
    from transformers import TrainingArguments

Trainer = Callable[[Sequence[TrainingRecord], int, Path], None]
"""Trains on records with a seed, and saves model and tokenizer in a folder, in Hugging Face layout."""

FULL_LEARNING_RATE, LORA_LEARNING_RATE = 5e-5, 2e-4


@dataclass(frozen=True, slots=True)
class Recipe:
    """Built-in recipe: plain causal language modelling with AdamW, for models that train in minutes.

    Attributes:
        start: folder of the model whose configuration and tokenizer are used.
        scratch: draw weights anew; else start from those of `start`.
        epochs: passes over the data; ignored where `steps` is given.
        steps: optimiser steps whatever the size of the data.
        learning_rate: highest rate of a one-cycle schedule.
        batch_tokens: padded tokens in a batch, at most.
        max_length: tokens of a sequence.
    """

    start: Path
    scratch: bool = True
    epochs: float = 3.0
    steps: int | None = None
    learning_rate: float = 3e-3
    batch_tokens: int = 2048
    max_length: int = 128

    def train(self, records: Sequence[TrainingRecord], seed: int, out: Path, *, until: float = 1.0) -> None:
        """Train a model on records and save it.

        `until`, a fraction of the steps above 0, stops there and saves the checkpoint that the whole run has then.
        """
        torch.manual_seed(seed)
        model = load_model(self.start, dtype="fp32")
        module: Any = model.module
        if self.scratch:
            anew: Any = AutoModelForCausalLM  # untyped in transformers
            config = AutoConfig.from_pretrained(str(self.start), local_files_only=True, trust_remote_code=False)
            # No folder chooses the code that runs its experts: it could be one from a hub.
            module = anew.from_config(config, trust_remote_code=False, experts_implementation=None).to(model.device)
        encoder = model.encoder(self.max_length)
        examples = [example for record in records for example in encoder.training(record)]
        generator = torch.Generator().manual_seed(seed)
        lengths = [len(example.tokens) for example in examples]
        order = _shuffled(lengths, self.batch_tokens, generator)
        total = self.steps or max(1, math.ceil(self.epochs * len(order)))
        optimizer = torch.optim.AdamW(module.parameters(), lr=self.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
        rising = max(0.1, min(0.75, 1.5 / total))  # of the schedule: a step at least, or it cannot be computed
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=total, pct_start=rising
        )
        module.train()
        for _ in range(max(1, round(until * total))):
            if not order:
                order = _shuffled(lengths, self.batch_tokens, generator)
            batch = make_batch([examples[i] for i in order.pop()]).to(model.device)
            logits = module(input_ids=batch.input_ids, use_cache=False).logits
            predicted = int((batch.labels[:, 1:] >= 0).sum())
            loss = sequence_losses(logits, batch.labels).sum() / predicted
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        with without_progress_bars():
            module.save_pretrained(out)
        model.tokenizer.save_pretrained(out)

    def fingerprint(self, model_sha256: str) -> str:
        """Return the identity of the recipe: its settings, its start model, and the software."""
        return recipe_fingerprint(asdict(self) | {"start": model_sha256})


def recipe_fingerprint(settings: Mapping[str, Any]) -> str:
    """Return the identity of a recipe: everything that decides the model, except data and seed."""
    software = {"credit": VERSION, "torch": torch.__version__, "transformers": transformers.__version__}
    return hashlib.sha256(canonical_json({**settings, "software": software}).encode()).hexdigest()


def _shuffled(lengths: Sequence[int], budget: int, generator: torch.Generator) -> list[list[int]]:
    """Return batches of at most `budget` padded tokens, filled in a random order that mixes providers and lengths."""
    batches: list[list[int]] = []
    longest = 0
    for position in torch.randperm(len(lengths), generator=generator).tolist():
        longest = max(longest, lengths[position])
        if not batches or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
            longest = lengths[position]
        batches[-1].append(position)
    return batches


@dataclass(frozen=True, slots=True)
class FineTuning:
    """Recipe by the Hugging Face Trainer: causal language modelling from the weights of a base model.

    AdamW with a linear schedule.

    Attributes:
        base: folder of the base model.
        lora: rank of an adapter on all linear layers but the head; None trains all weights.
        epochs: passes over the data; ignored where `steps` is given.
        steps: optimiser steps whatever the size of the data.
        learning_rate: the highest; None is 5e-5 for all weights and 2e-4 for an adapter.
        batch_size: examples in a step.
        max_length: tokens of a sequence.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ValuationError: `device` places a model in parts.
    """

    base: Path
    lora: int | None = None
    epochs: float = 3.0
    steps: int | None = None
    learning_rate: float | None = None
    batch_size: int = 8
    max_length: int = 128
    device: str = "auto"

    def __post_init__(self) -> None:
        check_whole(self.device)

    def train(self, records: Sequence[TrainingRecord], seed: int, out: Path) -> None:
        """Train on records and save model (or adapter) and tokenizer.

        Raises:
            ValuationError: a library that the Trainer or LoRA needs is missing.
        """
        # Loaded here: slow, and no other recipe needs it.
        from transformers import PrinterCallback
        from transformers import Trainer as HuggingFaceTrainer

        model = load_model(self.base, dtype="fp32", device=self.device)
        torch.manual_seed(seed)
        module: Any = model.module if self.lora is None else _with_adapter(model.module, self.lora)
        encoder = model.encoder(self.max_length)
        examples = [example for record in records for example in encoder.training(record)]
        trainer = HuggingFaceTrainer(
            model=module, args=self._arguments(seed, out, model.device), train_dataset=examples, data_collator=_collate
        )
        trainer.remove_callback(PrinterCallback)  # it prints to standard output, which belongs to the command
        trainer.train()
        with without_progress_bars():
            module.save_pretrained(out)
        model.tokenizer.save_pretrained(out)

    def fingerprint(self, model_sha256: str) -> str:
        """Return the identity of the recipe: its settings, the base model and the software."""
        return recipe_fingerprint(asdict(self) | {"base": model_sha256})

    def _arguments(self, seed: int, out: Path, device: torch.device) -> TrainingArguments:
        from transformers import TrainingArguments

        rate = FULL_LEARNING_RATE if self.lora is None else LORA_LEARNING_RATE
        try:
            return TrainingArguments(
                output_dir=str(out),
                num_train_epochs=self.epochs,
                max_steps=self.steps or -1,
                per_device_train_batch_size=self.batch_size,
                learning_rate=self.learning_rate or rate,
                lr_scheduler_type="linear",
                seed=seed,
                data_seed=seed,
                use_cpu=device.type == "cpu",
                dataloader_pin_memory=device.type != "cpu",
                remove_unused_columns=False,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            )
        except ImportError as error:
            raise ValuationError("fine-tuning needs accelerate; install it: pip install 'credit[peft]'") from error


def _with_adapter(module: Any, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValuationError("LoRA needs peft; install it: pip install 'credit[peft]'") from error
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(module, settings)


def _collate(examples: Sequence[Window]) -> dict[str, Tensor]:
    batch = make_batch(examples)
    return {"input_ids": batch.input_ids, "labels": batch.labels}


def load_trainer(name: str) -> Trainer:
    """Return the user's own recipe by its name `module:function`.

    Raises:
        InvalidRequestError: it cannot be imported or called.
    """
    module, _, function = name.partition(":")
    try:
        trainer: Trainer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidRequestError(f"the trainer {name!r} cannot be loaded ({error}); give module:function") from error
    if not callable(trainer):
        raise InvalidRequestError(f"the trainer {name!r} is not a function of (records, seed, folder)")
    return trainer


def trainer_fingerprint(name: str, trainer: Trainer) -> str:
    """Return the identity of the user's own recipe: its name and the source of its module, but not of its imports."""
    source = inspect.getsourcefile(inspect.unwrap(trainer))
    content = Path(source).read_bytes() if source else b""
    return recipe_fingerprint({"trainer": name, "source": hashlib.sha256(content).hexdigest()})
