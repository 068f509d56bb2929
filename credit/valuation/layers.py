"""Choice of the layers to watch, and a list of everything else by name and share of the parameters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from torch import nn
from transformers.pytorch_utils import Conv1D

from credit.errors import ValuationError
from credit.valuation.experts import ExpertLinear, expert_blocks, expert_layers


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Widths of a watched linear layer: it maps I inputs to O outputs.

    Attributes:
        name: its name in the model.
        in_width: I.
        out_width: O.
        is_head: True if its outputs have one entry for each token of the vocabulary: the output head, or the outer half
            of an adapter on it.
        is_expert: True for a layer of one expert: a pass, or all training data, may send no token to it.
    """

    name: str
    in_width: int
    out_width: int
    is_head: bool = False
    is_expert: bool = False

    @property
    def dense_widths(self) -> tuple[int, ...]:
        """Widths of the sides with a matrix as second moment: all sides but a head's vocabulary."""
        return (self.in_width,) if self.is_head else (self.in_width, self.out_width)


@dataclass(frozen=True, slots=True)
class SkippedLayer:
    """A module with unwatched parameters of its own, the reason, and their share of all parameters (0 to 1)."""

    name: str
    reason: str
    share: float


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """The watched layers of a model in the order of its modules, and all skipped ones."""

    watched: Mapping[str, nn.Module]
    shapes: tuple[LayerShape, ...]
    skipped: tuple[SkippedLayer, ...]

    @property
    def heads(self) -> frozenset[str]:
        """Names of the layers with the vocabulary as outputs."""
        return frozenset(shape.name for shape in self.shapes if shape.is_head)


def experts_of(shapes: Iterable[LayerShape]) -> frozenset[str]:
    """Return the names of the layers of experts."""
    return frozenset(shape.name for shape in shapes if shape.is_expert)


def layer_shape(name: str, module: nn.Module) -> LayerShape | None:
    """Return the shape of a linear layer that can be watched; None for any other module."""
    if isinstance(module, ExpertLinear):
        return LayerShape(name, module.in_features, module.out_features, is_expert=True)
    if isinstance(module, nn.Linear):
        return LayerShape(name, module.in_features, module.out_features)
    if isinstance(module, Conv1D):  # GPT-2's linear layer stores its weight as (in, out)
        return LayerShape(name, module.weight.shape[0], module.weight.shape[1])
    return None


def choose_layers(model: nn.Module, patterns: Sequence[str] = ()) -> LayerChoice:
    """Choose the layers to watch: the output head, or every linear layer that the patterns allow.

    Without patterns, the head alone: it predicts retraining best by far in every case of the laboratory
    (reports/fidelity), and needs no backward pass below it. A model without a head is watched in all its linear layers.
    Patterns are those of a shell and match the whole name. `!pattern` leaves layers out; if there are only such
    patterns, all other layers are in, the head too. An expert's layer is named `layers.0.mlp.experts.3.down_proj`.

    Raises:
        ValuationError: no layer is left, or a pattern matches no linear layer.
    """
    replaced = _replaced(model)
    modules = _linear_modules(model, replaced)
    linear = {name: shape for name, module in modules.items() if (shape := layer_shape(name, module))}
    _check_patterns(linear, patterns)
    heads = _heads(model, linear)
    watched: dict[str, nn.Module] = {}
    shapes: list[LayerShape] = []
    for name, shape in linear.items():
        if _allowed(name, patterns) if patterns else name in (heads[:1] or linear):
            watched[name] = modules[name]
            shapes.append(replace(shape, is_head=name in heads))
    if not watched:
        raise ValuationError(f"no linear layer of {type(model).__name__} is left to watch; choose others with --layers")
    skipped = _skipped(model, watched, replaced, by_default=not patterns)
    return LayerChoice(watched, tuple(shapes), skipped)


def known_layers(model: nn.Module, shapes: Sequence[LayerShape]) -> LayerChoice:
    """Return the layers of an index in its model, whatever its patterns would choose today."""
    modules = _linear_modules(model, _replaced(model))
    return LayerChoice({shape.name: modules[shape.name] for shape in shapes}, tuple(shapes), ())


def _linear_modules(model: nn.Module, replaced: Collection[str]) -> dict[str, nn.Module]:
    """Return all linear layers by name, in the order of the model's modules; those of experts as `ExpertLinear`."""
    found: dict[str, nn.Module] = {}
    for name, module in linear_layers_and_blocks(model).items():
        if name not in replaced:
            found |= {name: module} if layer_shape(name, module) else expert_layers(name, module)
    return found


def linear_layers_and_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Return a model's linear layers and blocks of experts by name, in the order of its modules."""
    blocks = expert_blocks(model)
    return {name: module for name, module in model.named_modules() if name in blocks or layer_shape(name, module)}


def _heads(model: nn.Module, linear: Mapping[str, LayerShape]) -> list[str]:
    """Return the names of the layers with the vocabulary as outputs, the output head first.

    None if the model does not name its output embeddings. PEFT wraps an adapted head: inside are the head and the outer
    half of the adapter, which is as wide.
    """
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if callable(get_head) else None
    if head is None:
        return []
    inside = {id(module) for module in head.modules()}
    found = [s for name, s in linear.items() if not s.is_expert and id(model.get_submodule(name)) in inside]
    # An adapter on the head has two layers inside; the outer one is as wide as the vocabulary.
    vocabulary = max((shape.out_width for shape in found), default=0)
    wide = [shape for shape in found if shape.out_width == vocabulary]
    return [shape.name for shape in sorted(wide, key=lambda shape: -shape.in_width)]


def _replaced(model: nn.Module) -> frozenset[str]:
    """Return the names of modules that never run, because PEFT trains a copy in their place (`modules_to_save`)."""
    return frozenset(
        f"{name}.original_module"
        for name, module in model.named_modules()
        if isinstance(getattr(module, "original_module", None), nn.Module) and hasattr(module, "modules_to_save")
    )


def how_to_leave_out(name: str) -> str:
    """Return the advice that leaves a layer out of an index, with those of its kind in the model's other blocks."""
    kind = re.sub(r"(?<=\.)\d+(?=\.)", "*", name)
    return f"leave it out with --layers '!{kind}'"


def _skipped(
    model: nn.Module, watched: Mapping[str, nn.Module], replaced: Collection[str], *, by_default: bool
) -> tuple[SkippedLayer, ...]:
    """Return the unwatched modules. Tied parameters count once: as watched, or at their first module."""
    sources = _offloaded_copies(model)

    def identity(parameter: nn.Parameter) -> int:
        return sources.get(id(parameter), id(parameter))

    total = sum({identity(parameter): parameter.numel() for parameter in model.parameters()}.values())
    counted = {identity(parameter) for module in watched.values() for parameter in module.parameters(recurse=False)}
    of_experts = Counter[int]()
    for module in watched.values():
        if isinstance(module, ExpertLinear):
            of_experts[id(module.block)] += module.in_features * module.out_features
    skipped = []
    linear = linear_layers_and_blocks(model)
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if identity(p) not in counted]
        size = sum(p.numel() for p in own) - of_experts[id(module)]
        if size and name not in watched:
            reason = f"{type(module).__name__} is not a linear layer"
            if name in linear:
                reason = "not the output head (--layers '*' watches all)" if by_default else "left out by --layers"
            if name in replaced:
                reason = "an adapter has put another in its place"
            skipped.append(SkippedLayer(name, reason, size / total))
        counted.update(identity(p) for p in own)
    return tuple(skipped)


def _offloaded_copies(model: nn.Module) -> dict[int, int]:
    """Return the identity of the source of each tied parameter, where either is offloaded: they are two then."""
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", {})
    pairs = [(model.get_parameter(name), model.get_parameter(source)) for name, source in tied.items()]
    return {id(parameter): id(source) for parameter, source in pairs if parameter.is_meta or source.is_meta}


def _check_patterns(linear: Mapping[str, LayerShape], patterns: Sequence[str]) -> None:
    for pattern in patterns:
        if linear and not any(fnmatchcase(name, pattern.removeprefix("!")) for name in linear):
            known = next(iter(linear))
            raise ValuationError(f"the pattern {pattern!r} matches no linear layer; layers are named like {known}")


def _allowed(name: str, patterns: Sequence[str]) -> bool:
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    if any(fnmatchcase(name, pattern) for pattern in unwanted):
        return False
    return not wanted or any(fnmatchcase(name, pattern) for pattern in wanted)
