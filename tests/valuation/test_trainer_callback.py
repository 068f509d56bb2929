"""A real Trainer on a tiny model, and the index that its callback leaves."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from credit.errors import ValuationError
from credit.records import TrainingRecord
from credit.valuation import AttributionIndex, Checkpoint, build_index, load_model
from credit.valuation.trainer_callback import IndexCallback
from tests.models import hidden_settings, records, save_tiny_model
from tests.valuation.conftest import FOLDED, SINGLE, make_output

SETTINGS = hidden_settings(rank=3, rows_per_group=4)


@pytest.fixture
def data() -> list[TrainingRecord]:
    return records({FOLDED: 9, SINGLE: 3})


def _train(folder: Path, data: Sequence[TrainingRecord], callback: Any, **options: Any) -> Trainer:
    model = load_model(save_tiny_model(folder / "start"), device="cpu")
    examples = [example for record in data for example in model.encoder(64).training(record)]
    rows = [{"input_ids": example.tokens.tolist(), "labels": example.tokens.tolist()} for example in examples]

    def collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        width = max(len(row["input_ids"]) for row in batch)
        pad = [width - len(row["input_ids"]) for row in batch]
        return {
            "input_ids": torch.tensor([row["input_ids"] + [1] * n for row, n in zip(batch, pad, strict=True)]),
            "labels": torch.tensor([row["labels"] + [-100] * n for row, n in zip(batch, pad, strict=True)]),
        }

    arguments = TrainingArguments(
        str(folder / "runs"),
        per_device_train_batch_size=3,
        max_steps=4,
        learning_rate=0.01,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **({"save_strategy": "no"} | options),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")  # torch says so where there is no GPU
        trainer = Trainer(
            model.module,
            arguments,
            train_dataset=rows,
            data_collator=collate,
            processing_class=model.tokenizer,
            callbacks=[callback],
        )
        trainer.train()
    return trainer


def test_the_index_is_that_of_the_saved_model_and_the_chosen_steps(data, tmp_path):
    callback = IndexCallback(data, tmp_path / "index", SETTINGS, name="tiny", steps=[2])
    _train(tmp_path, data, callback)
    final, middle = (load_model(tmp_path / "runs" / f"checkpoint-{step}", device="cpu") for step in (4, 2))
    build_index(final, data, tmp_path / "truth", SETTINGS, name="tiny", checkpoints=[Checkpoint(lambda: middle)])
    ours, truth = AttributionIndex.open(tmp_path / "index"), AttributionIndex.open(tmp_path / "truth")
    assert callback.result is not None
    assert ours.manifest.fingerprint == truth.manifest.fingerprint == callback.result.manifest.fingerprint
    outputs = [make_output(0, "the cat", " sat on a mat")]
    loaded = ours.load_model(device="cpu")
    truth.add_models(middle)
    torch.testing.assert_close(ours.value(loaded, outputs).effect(), truth.value(final, outputs).effect())
    assert middle.model_sha256 != final.model_sha256


def test_a_training_that_would_not_keep_the_checkpoints_is_refused(data, tmp_path):
    callback = IndexCallback(data, tmp_path / "index", SETTINGS, name="tiny", steps=[2])
    with pytest.raises(ValuationError, match="save_total_limit=1 deletes checkpoints"):
        _train(tmp_path, data, callback, save_total_limit=1)
    late = IndexCallback(data, tmp_path / "index", SETTINGS, name="tiny", steps=[9])
    with pytest.raises(ValuationError, match="step 9 is to be indexed, but training has 4 steps"):
        _train(tmp_path, data, late)
