"""A causal language model from a folder on disk, with the fingerprints that tie an index to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from credit.errors import ValuationError
from credit.valuation.batching import IGNORED, Batch

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
)  # fmt: skip
_DEFAULT_MAX_LENGTH = 2048

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A loaded causal LM. The hashes cover the files that decide its numbers."""

    path: Path
    module: nn.Module
    tokenizer: Any
    model_sha256: str
    tokenizer_sha256: str

    @property
    def device(self) -> torch.device:
        """Device of the model's parameters."""
        return next(self.module.parameters()).device

    @property
    def max_length(self) -> int:
        """Longest sequence that the model's positions allow, at most 2048."""
        positions = getattr(self.module.config, "max_position_embeddings", None)
        return min(int(positions), _DEFAULT_MAX_LENGTH) if positions else _DEFAULT_MAX_LENGTH

    def loss(self, batch: Batch) -> Tensor:
        """Sum over all predicted tokens of the batch of their negative log-likelihood, in nats."""
        return self.losses(batch).sum()

    def losses(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of each example of the batch, in nats: (N,)."""
        logits: Tensor = self.module(input_ids=batch.input_ids, use_cache=False).logits
        return sequence_losses(logits, batch.labels)


def sequence_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of cross-entropies of each example: logits (N, T, V), labels (N, T) -> (N,), in float32 or better.

    Never a mean: a mean would make an example's gradient depend on the others of its batch.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    predicted = labels[:, 1:]
    taken = predicted != IGNORED
    # Only positions that predict something are lifted to float32: prompts and padding cost no memory.
    losses = F.cross_entropy(logits[:, :-1][taken].to(dtype), predicted[taken], reduction="none")
    owner = taken.nonzero(as_tuple=True)[0]
    return losses.new_zeros(labels.shape[0]).index_add(0, owner, losses)


def load_model(path: Path, *, dtype: str = "auto", device: str = "auto") -> LanguageModel:
    """Load a causal LM and its tokenizer from a folder in Hugging Face layout (safetensors only; no network).

    Args:
        path: folder with config.json, *.safetensors and the tokenizer's files.
        dtype: `fp32`, `bf16`, or `auto`: bf16 on a GPU, fp32 on a CPU.
        device: `cpu`, `cuda`, `cuda:1`..., or `auto`.

    Raises:
        ValuationError: the folder is not a usable model; the message names the file.
    """
    if not path.is_dir():
        raise ValuationError(f"{path} is not a folder; give a model saved with save_pretrained()")
    if not (path / "config.json").is_file():
        raise ValuationError(f"{path} holds no config.json; give a model saved with save_pretrained()")
    _check_weights(path)
    model_sha256, tokenizer_sha256 = fingerprint_model(path), fingerprint_tokenizer(path)
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if dtype == "auto":
        dtype = "bf16" if chosen.type == "cuda" else "fp32"
    try:
        with without_progress_bars():
            tokenizer, module = _load(path, DTYPES[dtype])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ValuationError(f"{path} cannot be loaded as a causal language model: {error}") from error
    return LanguageModel(path, module.to(chosen).eval(), tokenizer, model_sha256, tokenizer_sha256)


def _load(path: Path, dtype: torch.dtype) -> tuple[Any, nn.Module]:
    tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    module: nn.Module = AutoModelForCausalLM.from_pretrained(
        str(path), dtype=dtype, local_files_only=True, use_safetensors=True
    )
    return tokenizer, module


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing bars of its own; under cron they fill mails."""
    logger: Any = hf_logging
    shown = logger.is_progress_bar_enabled()
    logger.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logger.enable_progress_bar()


def fingerprint_model(path: Path) -> str:
    """SHA-256 over the configuration and all weights of a model folder."""
    return _digest([path / "config.json", *sorted(path.glob("*.safetensors"))])


def fingerprint_tokenizer(path: Path) -> str:
    """SHA-256 over the tokenizer's files of a model folder.

    Raises:
        ValuationError: the folder holds no tokenizer.
    """
    files = [path / name for name in _TOKENIZER_FILES if (path / name).is_file()]
    if not files:
        raise ValuationError(f"{path} holds no tokenizer; save it there with tokenizer.save_pretrained()")
    return _digest(files)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(files: Iterable[Path]) -> str:
    parts = {file.name: sha256_file(file) for file in files}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _check_weights(path: Path) -> None:
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise ValuationError(
            f"{path} holds no *.safetensors file; save the model with save_pretrained() "
            "(pickled weights are never loaded)"
        )
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise ValuationError(f"{file} is not a whole safetensors file ({error}); copy it again") from error
    index = path / "model.safetensors.index.json"
    if index.is_file():
        named = set(json.loads(index.read_text())["weight_map"].values())
        missing = sorted(named - {file.name for file in files})
        if missing:
            raise ValuationError(f"{path / missing[0]} is missing; {index.name} names it")
