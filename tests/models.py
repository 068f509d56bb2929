"""Tiny models and data for numerics: random weights, real architectures, a real tokenizer."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from credit.records import Group, TrainingRecord
from credit.valuation import IndexSettings

LEXICON = "the cat sat on a mat while rain fell over green hills and nobody sang an old song about ships"
WORDS = LEXICON.split()
EVERY = ("*",)
"""Patterns of all linear layers of a tiny model."""
HIDDEN = ("!lm_head",)
"""Patterns of all but its output head."""


def dense_settings(**changes: Any) -> IndexSettings:
    """Settings with a dense Fisher, which the oracles can invert."""
    return replace(IndexSettings(rank=64, projection="random", curvature="fisher", damping=0.1), **changes)


def hidden_settings(**changes: Any) -> IndexSettings:
    """The same for the layers below the output head."""
    return dense_settings(**{"layers": HIDDEN} | changes)


def sentence(seed: int, length: int) -> str:
    """A reproducible sentence of `length` words."""
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(length))


def tiny_tokenizer(*, bos: bool = True) -> PreTrainedTokenizerFast:
    """A BPE tokenizer over bytes that puts `<s>` before a text, as Llama's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([sentence(i, 12) for i in range(50)], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def save_tiny_model(folder: Path, kind: str = "llama", seed: int = 0, *, layers: int = 2) -> Path:
    """Save a tiny random model with its tokenizer: `llama` (grouped-query attention) or `gpt2` (Conv1D)."""
    torch.manual_seed(seed)
    if kind == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=320,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
                attention_bias=True,
            )
        )
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=320, n_embd=16, n_layer=layers, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=1
            )
        )
    # Larger weights than the usual initialisation: gradients then differ enough to tell a wrong sum from a right one.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tiny_tokenizer(bos=kind == "llama").save_pretrained(folder)
    return folder


def records(sizes: dict[Group, int], *, seed: int = 0) -> list[TrainingRecord]:
    """Training records of unlike lengths, `sizes[group]` for each group; some with a prompt."""
    made = []
    for number, (group, size) in enumerate(sorted(sizes.items())):
        for i in range(size):
            text = sentence(1000 * seed + 100 * number + i, 3 + (7 * i + 3 * number) % 11)
            prompt = sentence(i, 4) if i % 3 == 2 else None
            made.append(TrainingRecord(f"{group}:{i}", group, text, prompt))
    return made
