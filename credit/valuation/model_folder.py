"""Model folder: checks of its files before transformers loads one. A model may come from anybody, and runs nothing.

Weights come from safetensors alone, code from transformers alone. Files lie in the folder itself. A snapshot of the
Hugging Face cache may link to the blobs of its cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from credit.errors import ValuationError
from credit.storage import parse_object

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
)  # fmt: skip

ATTENTIONS = ("eager", "sdpa", "flex_attention")
"""Implementations of attention that are part of transformers and torch. Others are downloaded, and run as they are."""

_KERNELS_FROM_HUB = frozenset({"eetq", "fbgemm_fp8", "metal", "nvfp4"})
"""Quantisations with kernels that are downloaded, and run as they are."""

_CONFIG, _ADAPTER, _WEIGHTS_INDEX = "config.json", "adapter_config.json", "model.safetensors.index.json"

ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""File of an adapter's weights."""

_ATTENTION_KEYS = frozenset({"attn_implementation", "_attn_implementation", "_attn_implementation_internal"})


def adapter_base(path: Path) -> Path:
    """Return the base model's folder: the base of a PEFT adapter, else `path` itself.

    Raises:
        ValuationError: the adapter names no folder with a model.
    """
    config = path / _ADAPTER
    if not config.is_file():
        return path
    try:
        named = parse_object(config.read_bytes())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise ValuationError(f"{config} does not name a base model ({error}); save the adapter again") from error
    if not isinstance(named, str) or "\0" in named:
        raise ValuationError(f"{config} does not name a base model; save the adapter again")
    base = Path(named)
    if not base.is_dir():
        raise ValuationError(
            f"{config} names the base model {named!r}, which is not a folder here; set base_model_name_or_path to one"
        )
    if (base / _ADAPTER).is_file():
        raise ValuationError(
            f"{config} names the base model {named!r}, which is an adapter too; merge it into its own base first"
        )
    return base


def check_folder(path: Path, *, adapter: bool) -> None:
    """Check the files of a model or of an adapter.

    Raises:
        ValuationError: a file is missing, damaged, linked from elsewhere, or would run code; the message names it.
    """
    for file in sorted(path.iterdir()):
        if file.name in {_CONFIG, _ADAPTER, _WEIGHTS_INDEX, *TOKENIZER_FILES} or file.suffix == ".safetensors":
            _check_place(file)
    if not adapter:
        if not (path / _CONFIG).is_file():
            raise ValuationError(f"{path} holds no {_CONFIG}; give a model saved with save_pretrained()")
        _check_config(path / _CONFIG)
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (path / name).is_file():
            _read_object(path / name)
    _check_weights(path, adapter=adapter)


def _check_place(file: Path) -> None:
    """Refuse a link out of the folder, unless into the blobs of the cache around it."""
    try:
        place = file.resolve(strict=True)
    except (OSError, RuntimeError):  # a loop of links is a RuntimeError before Python 3.13
        raise ValuationError(f"{file} is a link to nothing; copy the file there") from None
    folder = file.parent.resolve()
    cached = folder.parent.name == "snapshots" and place.is_relative_to(folder.parent.parent / "blobs")
    if not place.is_relative_to(folder) and not cached:
        raise ValuationError(f"{file} is a link out of its folder, to {place}; copy the file there")
    if not place.is_file():
        raise ValuationError(f"{file} is not a file; give a model saved with save_pretrained()")


def _check_config(path: Path) -> None:
    config = _read_object(path)
    if "transformers_weights" in config:
        raise ValuationError(f"{path} names its weights (transformers_weights); save the model with save_pretrained()")
    if (method := quantisation(config)) in _KERNELS_FROM_HUB:
        raise ValuationError(
            f"{path} says that the model is quantised by {method}, whose code is not part of transformers; give it as "
            "model.dequantize() and save_pretrained() leave it"
        )
    for name in _attentions(config):
        if name not in ATTENTIONS:
            raise ValuationError(
                f"{path} asks for the attention {name!r}, whose code is not part of transformers; take it out, or "
                f"write one of {', '.join(ATTENTIONS)}"
            )


def quantisation(config: Mapping[str, Any]) -> str | None:
    """Return the method by which a configuration says that its model is quantised."""
    found = config.get("quantization_config")
    method = found.get("quant_method") if isinstance(found, dict) else None
    return method if isinstance(method, str) else None


def _attentions(value: object) -> Iterator[object]:
    """Yield the names of attention implementations, also those of parts of the model."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, dict):
            for key, inner in item.items():
                if key in _ATTENTION_KEYS:
                    yield from (name for name in (inner.values() if isinstance(inner, dict) else [inner]) if name)
                else:
                    waiting.append(inner)


def _check_weights(path: Path, *, adapter: bool) -> None:
    files = sorted(path.glob("*.safetensors"))
    if not files or (adapter and not (path / ADAPTER_WEIGHTS).is_file()):
        raise ValuationError(
            f"{path} holds no {ADAPTER_WEIGHTS if adapter else '*.safetensors'} file; save the model with "
            "save_pretrained() (pickled weights are never loaded)"
        )
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise ValuationError(f"{file} is not a whole safetensors file ({error}); copy it again") from error
    index = path / _WEIGHTS_INDEX
    if not index.is_file():
        return
    places = _read_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ValuationError(f"{index} has no weight_map from weights to files; copy it again")
    missing = sorted(set(places.values()) - {file.name for file in files})
    if missing:
        raise ValuationError(f"{path / missing[0]} is missing; {index.name} names it")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValuationError(f"{path} cannot be used: {error}; copy it again") from error
