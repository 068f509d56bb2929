"""The authors' records, outputs of their kind, and a recipe that trains a model of their text in seconds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from credit.fidelity.recipes import Recipe
from credit.records import Group, LoggedOutput, TrainingRecord
from tests.fidelity.authors import LEXICONS, sentence
from tests.models import tiny_tokenizer


@pytest.fixture(scope="session")
def records() -> list[TrainingRecord]:
    return [
        TrainingRecord(f"{author}-{i}", Group(author), sentence(author, i)) for author in LEXICONS for i in range(24)
    ]


@pytest.fixture(scope="session")
def outputs() -> list[LoggedOutput]:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        LoggedOutput(
            "own", f"{author}-{i}", moment, "m", " " + sentence(author, 900 + i, 6), sentence(author, 800 + i, 4)
        )
        for author in LEXICONS
        for i in range(3)
    ]


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    start = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(start)
    tiny_tokenizer().save_pretrained(start)
    return Recipe(start, epochs=8, learning_rate=1e-2, batch_tokens=512, max_length=64)
