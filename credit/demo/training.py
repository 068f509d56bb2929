"""A tokenizer and a small Llama trained from scratch, in about a minute on two cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from credit.valuation.language_model import without_progress_bars

VOCABULARY = 2048
MAX_LENGTH = 256
_SEQUENCE = 128
_BATCH = 8
_EPOCHS = 3
_LEARNING_RATE = 3e-3
_ANSWERS_AT_ONCE = 16


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; it puts `<s>` before a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    fast: Any = PreTrainedTokenizerFast  # untyped in transformers
    dressed: PreTrainedTokenizerFast = fast(tokenizer_object=tokenizer, model_max_length=MAX_LENGTH, **special)
    return dressed


def train_model(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    on_step: Callable[[int, int, float], None],
    on_middle: Callable[[LlamaForCausalLM], None],
) -> LlamaForCausalLM:
    """Train a small Llama from scratch.

    Args:
        texts: its training data.
        tokenizer: its tokenizer.
        seed: seed of the weights and of the order of the data.
        on_step: gets step, steps and loss (nats per token) after every step.
        on_middle: gets the model as it is after one pass over the data, of several.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    sequences = torch.cat([_sequences(tokenizer(text, verbose=False)["input_ids"]) for text in texts])
    steps = _EPOCHS * math.ceil(len(sequences) / _BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.1)
    model.train()
    for step, batch in enumerate(_batches(sequences, seed), start=1):
        labels = torch.where(batch < 0, -100, batch)
        loss = model(input_ids=batch.clamp(min=0), attention_mask=(batch >= 0).long(), labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_step(step, steps, float(loss.detach()))
        if step == steps // _EPOCHS:
            on_middle(model)
    model.train(False)
    return model


def _sequences(ids: list[int]) -> Tensor:
    """Cut a text's tokens into rows of _SEQUENCE, the last padded with -1."""
    rows = math.ceil(len(ids) / _SEQUENCE)
    padded = torch.full((rows * _SEQUENCE,), -1, dtype=torch.int64)
    padded[: len(ids)] = torch.tensor(ids)
    return padded.view(rows, _SEQUENCE)


def _batches(sequences: Tensor, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(_EPOCHS):
        yield from torch.split(sequences[torch.randperm(len(sequences), generator=generator)], _BATCH)


def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    new_tokens: int,
    seed: int,
    on_answers: Callable[[int, int], None],
) -> list[str]:
    """Return the model's continuations of prompts, sampled with a seed; `on_answers(done, total)` follows."""
    torch.manual_seed(seed)
    answers: list[str] = []
    for start in range(0, len(prompts), _ANSWERS_AT_ONCE):
        # Padded on the left: a continuation begins where its prompt ends.
        batch = list(prompts[start : start + _ANSWERS_AT_ONCE])
        encoded = tokenizer(batch, return_tensors="pt", padding=True, padding_side="left")
        with torch.no_grad():
            ids = model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens // 2,
                do_sample=True,
                temperature=0.7,
                top_k=50,
            )
        answers += tokenizer.batch_decode(ids[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        on_answers(len(answers), len(prompts))
    return answers


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save model and tokenizer as a Hugging Face model folder."""
    with without_progress_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
