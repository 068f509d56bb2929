"""Measured models: shapes of real ones with random weights, and SmolLM2 with its own if at hand.

Needs torch and transformers (and its tokenizers) alone: it also runs in the environment of other libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

HIDDEN = ("!lm_head",)
"""Patterns of the linear layers below the output head, which other libraries watch."""
MAX_LENGTH = 8192
"""Positions of the Llama shapes: more than any sequence that is measured."""


@dataclass(frozen=True)
class ModelShape:
    """A model to measure: `make` builds it with random weights from a configuration, on a device."""

    key: str
    title: str
    config: Callable[[], Any]
    make: Callable[[Any], nn.Module]


def _gpt2(layers: int, width: int, heads: int, vocabulary: int) -> Callable[[], GPT2Config]:
    return lambda: GPT2Config(
        n_layer=layers, n_embd=width, n_head=heads, vocab_size=vocabulary, n_positions=256,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip


def _llama(
    layers: int, width: int, inner: int, heads: int, kv_heads: int, vocabulary: int, *, tied: bool
) -> Callable[[], LlamaConfig]:
    return lambda: LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip


MODELS = {
    shape.key: shape
    for shape in (
        ModelShape("gpt2-tiny", "GPT-2, 2 layers, d=64, vocabulary 512", _gpt2(2, 64, 2, 512), GPT2LMHeadModel),
        ModelShape("gpt2-small", "GPT-2, 4 layers, d=256, vocabulary 4096", _gpt2(4, 256, 4, 4096), GPT2LMHeadModel),
        ModelShape("gpt2", "GPT-2, 6 layers, d=384, vocabulary 50257", _gpt2(6, 384, 6, 50257), GPT2LMHeadModel),
        ModelShape("smollm2", "SmolLM2-135M", _llama(30, 576, 1536, 9, 3, 49152, tied=True), LlamaForCausalLM),
        ModelShape(
            "llama-tiny", "Llama, 2 layers, d=64, vocabulary 512", _llama(2, 64, 128, 4, 2, 512, tied=True),
            LlamaForCausalLM,
        ),
        # The shapes of Llama 3.2 1B and of Llama 3.1 8B.
        ModelShape("llama-1b", "Llama 1B", _llama(16, 2048, 8192, 32, 8, 128256, tied=True), LlamaForCausalLM),
        ModelShape("llama-8b", "Llama 8B", _llama(32, 4096, 14336, 32, 8, 128256, tied=False), LlamaForCausalLM),
    )
}  # fmt: skip


def make_model(shape: ModelShape, device: str, dtype: torch.dtype, weights: Path | None = None) -> nn.Module:
    """Random weights made on the device, in the dtype wanted from the start: 8B parameters never pass the CPU.

    Args:
        shape: what to build.
        device: as torch names it.
        dtype: of the weights.
        weights: a folder of real weights of this shape, used instead.
    """
    if weights is not None:
        loaded: nn.Module = AutoModelForCausalLM.from_pretrained(weights, dtype=dtype, trust_remote_code=False)
        return loaded.to(device).eval()
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return shape.make(shape.config()).eval()
    finally:
        torch.set_default_dtype(before)


def save_model(shape: ModelShape, folder: Path) -> int:
    """Save a random model with a tokenizer of one word a token, see `words`; return the size of its vocabulary."""
    module: Any = make_model(shape, "cpu", torch.float32)
    module.save_pretrained(folder)
    vocabulary = int(module.config.vocab_size)
    tokenizer = Tokenizer(WordLevel({f"t{token}": token for token in range(vocabulary)}, unk_token="t0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return vocabulary


def words(tokens: Iterable[int]) -> str:
    """A text that the tokenizer of `save_model` turns into these ids."""
    return " ".join(f"t{token}" for token in tokens)
