"""Causal language model from a folder, with the fingerprints that tie an index to it."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging
from transformers.utils.quantization_config import FineGrainedFP8Config, Mxfp4Config

from credit.errors import CreditError, InputError, ValuationError
from credit.storage import canonical_json, parse_object, sha256_file
from credit.valuation.batches import PaddedBatch, make_batch
from credit.valuation.eligibility import check_adapter_weights, check_model, check_weights
from credit.valuation.losses import sequence_losses
from credit.valuation.model_folder import ADAPTER_WEIGHTS, TOKENIZER_FILES, adapter_base, check_folder, quantisation
from credit.valuation.placement import Placement, disjoint_parts, main_device, offload_folder, read_placement
from credit.valuation.task import LossBatch
from credit.valuation.tokens import TEMPLATE_DATE, Encoder, Window

_DEFAULT_MAX_LENGTH = 2048
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "max_sequence_length")
"""Names of the number of positions in configurations, the usual one first."""
_NO_LIMIT = 10**9
"""Tokenizers without a limit give a number far beyond this one."""
_LONGEST_REASON = 600

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


_UNPACKED: dict[str | None, Any] = {"mxfp4": Mxfp4Config, "fp8": FineGrainedFP8Config}
"""Quantisations read as the numbers that they stand for: transformers would run them by kernels from a hub."""


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """Loaded causal language model, the `Task` of text. Its hashes cover all files that decide its numbers."""

    path: Path
    module: nn.Module
    tokenizer: Any
    model_sha256: str
    tokenizer_sha256: str

    flat_inputs: ClassVar[bool] = False

    @property
    def location(self) -> str:
        """The model's folder."""
        return str(self.path.resolve())

    @property
    def device(self) -> torch.device:
        """Device of the model's inputs and losses, where the gradients of all layers meet."""
        return main_device(self.module)

    @property
    def positions(self) -> int | None:
        """Most tokens that the model reads at once; None if its configuration does not tell."""
        return _positions(self.module.config)

    @property
    def context_length(self) -> int:
        """Tokens with which an output is read: the model's positions. The tokenizer's limit stands in for them."""
        return _context_length(self.positions, self.tokenizer)

    @property
    def max_length(self) -> int:
        """Tokens of the longest window of training data: the model's positions, at most 2048."""
        return _window_length(self.positions)

    def encoder(self, max_length: int, template_date: str = TEMPLATE_DATE) -> Encoder:
        """Return the encoder of texts, prompts and chats into windows of at most `max_length` tokens.

        Raises:
            InputError: the model has fewer positions.
        """
        if self.positions and max_length > self.positions:
            raise InputError(
                f"examples of {max_length} tokens do not fit into the {self.positions} positions of the model"
            )
        return Encoder(self.tokenizer, max_length, template_date)

    def batch(self, examples: Sequence[Window]) -> LossBatch:
        """Return a batch of windows, padded to one length, on the model's device.

        Raises:
            ValuationError: a window holds a token without an embedding.
        """
        known = self.module.get_input_embeddings().weight.shape[0]  # type: ignore[operator]  # every transformers model has them
        for example in examples:
            # A GPU would answer an index beyond the table with an assertion that names no example.
            if (highest := int(example.tokens.max())) >= known:
                raise ValuationError(
                    f"{example.id} holds the token {highest}, but {self.path} has embeddings of {known}: its tokenizer "
                    "was given tokens that the model was not; save both after model.resize_token_embeddings()"
                )
        batch = make_batch(examples).to(self.device)
        return LossBatch(batch.size, lambda: self.loss(batch), batch.real)

    def loss(self, batch: PaddedBatch) -> Tensor:
        """Return the sum over a batch of its windows' losses, in nats."""
        return self.losses(batch).sum()

    def losses(self, batch: PaddedBatch) -> Tensor:
        """Return the loss of each window, the negative log-likelihood of its predicted tokens, in nats: (N,).

        Raises:
            ValuationError: the model puts out more positions than tokens, as with virtual tokens.
        """
        # No attention mask, see `batches.PaddedBatch`; no cache, which would keep keys and values for nothing.
        logits: Tensor = self.module(input_ids=batch.input_ids, use_cache=False).logits
        if logits.shape[:2] != batch.labels.shape:
            raise ValuationError(
                f"{self.path} puts out {logits.shape[1]} positions for {batch.labels.shape[1]} tokens, as an adapter "
                "of virtual tokens does (prompt tuning, p-tuning), which cannot be valued; give the model without it"
            )
        return sequence_losses(logits, batch.labels)


def load_model(path: Path, *, dtype: str = "auto", device: str = "auto") -> LanguageModel:
    """Load a causal language model and its tokenizer from a folder in Hugging Face layout.

    There is no network, no pickle and no code of the folder: see `model_folder`.

    A PEFT adapter is loaded on top of its base model, which must be a folder too. Layers of base and adapter can be
    watched by their names.

    Args:
        path: folder with config.json or adapter_config.json, *.safetensors and the tokenizer's files.
        dtype: `fp32`, `bf16`, `fp16`, `fp64`, or `auto`: bf16 on a GPU, fp32 on a CPU.
        device: `cpu`, `cuda`, `cuda:1`..., or `auto`; or the places of a model's parts, see `placement`.

    Raises:
        ValuationError: the folder is no usable model (the message names the file), its model cannot be valued (see
            `eligibility`), or the dtype is unknown.
    """
    if not path.is_dir():
        raise ValuationError(f"{path} is not a folder; give a model saved with save_pretrained()")
    base = adapter_base(path)
    check_folder(base, adapter=False)
    if path != base:
        check_folder(path, adapter=True)
    has_tokenizer = _tokenizer_folder(path, base)
    tokenizer_sha256 = fingerprint_tokenizer(has_tokenizer)
    placement = read_placement(device)
    if placement.device is None and path != base:
        raise ValuationError(
            f"{path} is an adapter, and a model in parts takes none; merge it into its base (merge_and_unload()), and "
            "save that with save_pretrained()"
        )
    if dtype == "auto":
        dtype = "bf16" if placement.uses_gpu else "fp32"
    if dtype not in DTYPES:
        raise ValuationError(f"dtype {dtype!r} is unknown; choose one of auto, {', '.join(DTYPES)}")
    try:
        with without_progress_bars():
            tokenizer = _load_tokenizer(has_tokenizer)
            module = _load(base, path, DTYPES[dtype], placement).eval()
            check_model(path, module, DTYPES[dtype])
    except CreditError:
        raise
    except Exception as error:
        # The folder decides where transformers fails: a configuration with a text for a number is a TypeError.
        raise ValuationError(f"{path} cannot be loaded as a causal language model: {_reason(error)}") from error
    return LanguageModel(path, module, tokenizer, fingerprint_model(path), tokenizer_sha256)


def load_encoder(path: Path, max_length: int | None = None, template_date: str = TEMPLATE_DATE) -> Encoder:
    """Load the encoder of a model without its weights, with windows as an index of the model would have.

    Args:
        path: folder of the model or adapter.
        max_length: most tokens of a window; None for the model's positions, at most 2048.
        template_date: date that chat templates take for today.

    Raises:
        ValuationError: the folder is no usable model.
    """
    positions, tokenizer = _without_weights(path)
    return Encoder(tokenizer, max_length or _window_length(positions), template_date)


def load_output_encoder(path: Path, at_least: int) -> Encoder:
    """Load the encoder of outputs without the model's weights: its windows have the model's context, or `at_least`.

    Raises:
        ValuationError: the folder is no usable model.
    """
    positions, tokenizer = _without_weights(path)
    return Encoder(tokenizer, max(at_least, _context_length(positions, tokenizer)))


def fingerprint_tokenizer_of(path: Path) -> str:
    """Return the SHA-256 over the tokenizer's files of a model, or of the base of an adapter that has none.

    Raises:
        ValuationError: there are no such files.
    """
    return fingerprint_tokenizer(_tokenizer_folder(path, adapter_base(path)))


def _without_weights(path: Path) -> tuple[int | None, Any]:
    """Return the number of a model's positions, and its tokenizer."""
    if not path.is_dir():
        raise ValuationError(f"{path} is not a folder; give a model saved with save_pretrained()")
    base = adapter_base(path)
    check_folder(base, adapter=False)
    try:
        config = AutoConfig.from_pretrained(str(base), local_files_only=True, trust_remote_code=False)
        tokenizer = _load_tokenizer(_tokenizer_folder(path, base))
    except CreditError:
        raise
    except Exception as error:
        raise ValuationError(f"the tokenizer of {path} cannot be loaded: {_reason(error)}") from error
    return _positions(config), tokenizer


def _reason(error: Exception) -> str:
    """Return the start of an error's text in one line."""
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__


def _tokenizer_folder(path: Path, base: Path) -> Path:
    return path if any((path / name).is_file() for name in TOKENIZER_FILES) else base


def _load_tokenizer(folder: Path) -> Any:
    with without_progress_bars():
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def _positions(config: Any) -> int | None:
    text = config.get_text_config(decoder=True)  # a model of images and text keeps its numbers apart
    return next((int(value) for name in _POSITIONS if (value := getattr(text, name, None))), None)


def _context_length(positions: int | None, tokenizer: Any) -> int:
    limit = positions or int(tokenizer.model_max_length)
    return limit if limit < _NO_LIMIT else _DEFAULT_MAX_LENGTH


def _window_length(positions: int | None) -> int:
    return min(positions or _DEFAULT_MAX_LENGTH, _DEFAULT_MAX_LENGTH)


def _load(base: Path, path: Path, dtype: torch.dtype, placement: Placement) -> nn.Module:
    """Load a model, with its adapter if `path` is one, and put it where the placement says."""
    if placement.device is None:
        return _load_in_parts(base, dtype, placement)
    module = _load_base(base, dtype)
    return (module if path == base else _adapted(module, path, dtype)).to(placement.device)


def _load_in_parts(base: Path, dtype: torch.dtype, placement: Placement) -> nn.Module:
    parts = placement.parts
    if isinstance(parts, Mapping):
        config = AutoConfig.from_pretrained(str(base), local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):  # names of the parts, and no numbers
            without_weights: Any = AutoModelForCausalLM
            parts = disjoint_parts(parts, without_weights.from_config(config, experts_implementation=None))
    with offload_folder() as (folder, keep):
        module = _load_base(base, dtype, parts, folder)
        keep(module)
    return module


def _load_base(
    base: Path, dtype: torch.dtype, parts: Mapping[str, str | int] | str | None = None, folder: Path | None = None
) -> nn.Module:
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        str(base),
        dtype=dtype,
        device_map=parts,
        offload_folder=folder,
        # Given in any case: a folder may ask for a kernel from a hub. torch's kernel for all experts knows no float64.
        experts_implementation="eager" if dtype == torch.float64 else None,
        quantization_config=_unpacking(base),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    module: nn.Module
    module, report = loaded
    check_weights(base, module, report["missing_keys"], report["unexpected_keys"])
    return module


def _unpacking(base: Path) -> Any:
    """Return the configuration that unpacks a model at loading, if it is packed for kernels from a hub; else None."""
    method = quantisation(parse_object((base / "config.json").read_bytes()))
    return _UNPACKED[method](dequantize=True) if method in _UNPACKED else None


def _adapted(module: nn.Module, path: Path, dtype: torch.dtype) -> nn.Module:
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as error:
        raise ValuationError(
            f"{path} is a PEFT adapter; install peft to load it: pip install 'credit[peft]'"
        ) from error
    with warnings.catch_warnings():
        # peft only warns, and goes on with its initial weights.
        warnings.filterwarnings("error", message=".*missing adapter keys")
        try:
            adapted: nn.Module = PeftModel.from_pretrained(module, str(path), autocast_adapter_dtype=False).to(dtype)
        except UserWarning as warning:
            raise ValuationError(f"{path} lacks weights of its adapter: {warning}; save it again") from warning
    known = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    check_adapter_weights(path, path / ADAPTER_WEIGHTS, known.keys() | adapted.state_dict().keys())
    return adapted


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Context without the progress bars of transformers, which fill the mails of cron."""
    logger: Any = hf_logging
    shown = logger.is_progress_bar_enabled()
    logger.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logger.enable_progress_bar()


def fingerprint_model(path: Path) -> str:
    """Return the SHA-256 over configuration and weights of a model folder, with those of an adapter's base."""
    base = adapter_base(path)
    own = [path / "config.json" if base == path else path / "adapter_config.json", *sorted(path.glob("*.safetensors"))]
    if base == path:
        return _digest(own)
    return hashlib.sha256(f"{fingerprint_model(base)}\0{_digest(own)}".encode()).hexdigest()


def fingerprint_tokenizer(path: Path) -> str:
    """Return the SHA-256 over the tokenizer's files of a model folder.

    Raises:
        ValuationError: the folder holds no tokenizer.
    """
    files = [path / name for name in TOKENIZER_FILES if (path / name).is_file()]
    if not files:
        raise ValuationError(f"{path} holds no tokenizer; save it there with tokenizer.save_pretrained()")
    return _digest(files)


def _digest(files: Iterable[Path]) -> str:
    parts = {file.name: sha256_file(file) for file in files}
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()
