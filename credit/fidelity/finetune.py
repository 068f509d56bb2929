"""Retraining by the Hugging Face Trainer: fine-tuning of a base model, of all its weights or of a LoRA adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback, TrainingArguments
from transformers import Trainer as HuggingFaceTrainer

from credit.errors import ValuationError
from credit.fidelity.retrain import recipe_fingerprint
from credit.records import TrainingRecord
from credit.valuation.batches import make_batch
from credit.valuation.language_model import load_model, without_progress_bars
from credit.valuation.tokens import Window

FULL_LEARNING_RATE, LORA_LEARNING_RATE = 5e-5, 2e-4


@dataclass(frozen=True, slots=True)
class FineTuning:
    """Causal language modelling from the weights of a base model, with the Trainer's AdamW and linear schedule.

    Attributes:
        base: folder of the base model.
        lora: rank of an adapter on all linear layers but the head; None trains all weights.
        epochs: passes over the data; ignored where `steps` is given.
        steps: optimiser steps whatever the size of the data.
        learning_rate: the highest; None is 5e-5 for all weights and 2e-4 for an adapter.
        batch_size: examples in a step.
        max_length: tokens of a sequence.
        device: `auto`, `cpu` or `cuda`.
    """

    base: Path
    lora: int | None = None
    epochs: float = 3.0
    steps: int | None = None
    learning_rate: float | None = None
    batch_size: int = 8
    max_length: int = 128
    device: str = "auto"

    def train(self, records: Sequence[TrainingRecord], seed: int, out: Path) -> None:
        """Train on records and save model (or adapter) and tokenizer.

        Raises:
            ValuationError: a library that the Trainer or LoRA needs is not installed.
        """
        model = load_model(self.base, dtype="fp32", device=self.device)
        torch.manual_seed(seed)
        module: Any = model.module if self.lora is None else _with_adapter(model.module, self.lora)
        encoder = model.encoder(self.max_length)
        examples = [example for record in records for example in encoder.training(record)]
        trainer = HuggingFaceTrainer(
            model=module, args=self._arguments(seed, out, model.device), train_dataset=examples, data_collator=_collate
        )
        trainer.remove_callback(PrinterCallback)  # it prints to standard output, which is the command's
        trainer.train()
        with without_progress_bars():
            module.save_pretrained(out)
        model.tokenizer.save_pretrained(out)

    def fingerprint(self, model_sha256: str) -> str:
        """Identity of the recipe: its settings, the base model and the software."""
        return recipe_fingerprint(asdict(self) | {"base": model_sha256})

    def _arguments(self, seed: int, out: Path, device: torch.device) -> TrainingArguments:
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
