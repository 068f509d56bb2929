"""Which layers of a model are watched, and which are not, by name and share of the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from transformers.pytorch_utils import Conv1D

from credit.errors import ValuationError


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Widths of a watched linear layer: it maps I inputs to O outputs."""

    name: str
    in_width: int
    out_width: int


@dataclass(frozen=True, slots=True)
class SkippedLayer:
    """A module whose own parameters are not watched, why, and their share of all parameters (0 to 1)."""

    name: str
    reason: str
    share: float


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """The watched layers of a model in the order of its modules, and everything that was left out."""

    watched: Mapping[str, nn.Module]
    shapes: tuple[LayerShape, ...]
    skipped: tuple[SkippedLayer, ...]
    watched_share: float


def layer_shape(name: str, module: nn.Module) -> LayerShape | None:
    """Return the shape of `module` if it is a linear map that can be watched, else None."""
    if isinstance(module, nn.Linear):
        return LayerShape(name, module.in_features, module.out_features)
    if isinstance(module, Conv1D):  # GPT-2's linear layer: its weight is stored as (in, out)
        return LayerShape(name, module.weight.shape[0], module.weight.shape[1])
    return None


def choose_layers(model: nn.Module, *, lm_head: bool, patterns: Sequence[str] = ()) -> LayerChoice:
    """Choose the layers to watch: every linear layer that the patterns allow, the output head only if `lm_head`.

    The head is out by default because its output side is as wide as the vocabulary. Patterns are those of a shell
    and match the whole name; `!pattern` leaves layers out; without others, all the rest is in.

    Raises:
        ValuationError: no layer is left, or a pattern matches no linear layer.
    """
    _check_patterns(model, patterns)
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if callable(get_head) else None
    total = sum(parameter.numel() for parameter in model.parameters())
    watched: dict[str, nn.Module] = {}
    shapes: list[LayerShape] = []
    skipped: list[SkippedLayer] = []
    counted: set[int] = set()  # tied parameters are one parameter, and count where they come first
    watched_size = 0
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        size = sum(p.numel() for p in own)
        shape = layer_shape(name, module)
        reason = _why_skipped(module, shape, is_head=module is head, lm_head=lm_head)
        if reason is None and not _allowed(name, patterns):
            reason = "left out by --layers"
        if shape is not None and reason is None:
            watched[name] = module
            shapes.append(shape)
            watched_size += size
        elif size:
            skipped.append(SkippedLayer(name, reason or "not a linear layer", size / total))
        counted.update(id(p) for p in own)
    if not watched:
        raise ValuationError(f"no linear layer of {type(model).__name__} is left to watch")
    return LayerChoice(watched, tuple(shapes), tuple(skipped), watched_size / total)


def _check_patterns(model: nn.Module, patterns: Sequence[str]) -> None:
    names = [name for name, module in model.named_modules() if layer_shape(name, module) is not None]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern.removeprefix("!")) for name in names):
            raise ValuationError(f"the pattern {pattern!r} matches no linear layer; layers are named like {names[0]}")


def _allowed(name: str, patterns: Sequence[str]) -> bool:
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    if any(fnmatchcase(name, pattern) for pattern in unwanted):
        return False
    return not wanted or any(fnmatchcase(name, pattern) for pattern in wanted)


def _why_skipped(module: nn.Module, shape: LayerShape | None, *, is_head: bool, lm_head: bool) -> str | None:
    if is_head and not lm_head:
        return "output head, left out by default (--lm-head includes it)"
    if shape is None:
        return f"{type(module).__name__} is not a linear layer"
    return None
