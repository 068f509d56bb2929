"""Experts of a mixture of experts: each of their linear layers, watched as a layer of its own.

transformers keeps the experts of a block in one parameter, (experts, O, I), and multiplies by all of them in one
kernel. So no module of the model is an expert's layer, and no hook sees its inputs. `ExpertLinear` stands for one, and
`run_experts` runs a block expert by expert, through transformers' own interface for implementations of experts. The
families that use this interface share all of it: Mixtral, Qwen-MoE, DeepSeek, gpt-oss, OLMoE, GLM and others.

An expert sees the tokens that the router sent to it. A token that was sent elsewhere adds nothing to its gradient.

Legend: N windows, T positions, K tokens of an expert, I and O widths of its inputs and outputs, W either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

IMPLEMENTATION = "credit"
"""Name of `run_experts` among transformers' implementations of experts."""

_WATCHED = "credit_watched_experts"
"""Attribute of a block, in the context `experts_one_by_one`: its watched layers by part and number."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Places of an expert's K tokens among the positions of a batch: the number n·T + t of each, (K,) int64."""

    places: Tensor
    windows: int
    positions: int

    def spread(self, values: Tensor) -> Tensor:
        """Return values (K, W) at the places of their tokens, and zero elsewhere: (N, T, W)."""
        spread = values.new_zeros(self.windows * self.positions, values.shape[1])
        return spread.index_copy_(0, self.places, values).view(self.windows, self.positions, -1)


class ExpertLinear(nn.Module):
    """One linear layer of one expert. It is no part of the model: it holds the block, and none of its numbers.

    Args:
        block: the block of experts.
        part: name of the parameter with this layer of all experts.
        number: the expert.
    """

    def __init__(self, block: nn.Module, part: str, number: int) -> None:
        super().__init__()
        self.block, self.part, self.number = block, part, number
        self.out_features, self.in_features = _widths(block, part)

    @property
    def weight(self) -> Tensor:
        """The expert's weight, (O, I)."""
        return _weight(self.block, self.part, self.number)

    def forward(self, rows: Tensor, tokens: Tensor, batch: int) -> Tensor:
        """Map the inputs (K, I) of an expert's tokens to (K, O). Hooks also read the places of `tokens`."""
        del tokens, batch
        return _multiply(self.block, self.part, self.number, rows)


def expert_parts(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a block's parameters with a linear layer of each expert; none for any other module."""
    block: Any = module
    # transformers' decorator sets these. A block without them computes in a way of its own.
    if not isinstance(getattr(block, "is_transposed", None), bool) or not hasattr(block, "has_post_expert_norm"):
        return ()
    if block._is_expert_parallel or not callable(getattr(block, "_apply_gate", None)):
        return ()
    parts = ("gate_up_proj" if block.has_gate else "up_proj", "down_proj")
    weights = [getattr(block, part, None) for part in parts]
    whole = all(isinstance(weight, Tensor) and weight.dim() == 3 and weight.is_floating_point() for weight in weights)
    return parts if whole else ()


def expert_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Return a model's blocks of experts by name."""
    return {name: module for name, module in model.named_modules() if expert_parts(module)}


def expert_layers(name: str, block: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a block's experts by their names in the model: the block's, then `3.down_proj`."""
    parts = expert_parts(block)
    numbers = range(len(getattr(block, parts[0])))
    return {f"{name}.{number}.{part}": ExpertLinear(block, part, number) for number in numbers for part in parts}


@contextmanager
def experts_one_by_one(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Context with the blocks of watched experts run expert by expert, calling the hooks of each watched layer."""
    watched = [layer for layer in layers if isinstance(layer, ExpertLinear)]
    blocks: dict[int, Any] = {id(layer.block): layer.block for layer in watched}
    # Blocks share the configuration of their model, so that all of them run expert by expert.
    configs: dict[int, Any] = {id(block.config): block.config for block in blocks.values()}
    before = [(config, config._experts_implementation_internal) for config in configs.values()]
    try:
        for block in blocks.values():
            own = {(each.part, each.number): each for each in watched if each.block is block}
            setattr(block, _WATCHED, own)
        for config in configs.values():
            config._experts_implementation_internal = IMPLEMENTATION
        yield
    finally:
        for config, implementation in before:
            config._experts_implementation_internal = implementation
        for block in blocks.values():
            delattr(block, _WATCHED)


def run_experts(block: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Run a block of experts one after the other, as transformers' `eager` implementation does.

    Args:
        block: the block.
        hidden_states: inputs of N·T tokens, (N·T, I).
        top_k_index: experts of each token, (N·T, k). A number beyond the last expert stands for none.
        top_k_weights: weights of their outputs, (N·T, k).

    Returns:
        (N·T, O), in the dtype of the inputs.
    """
    watched: dict[tuple[str, int], ExpertLinear] = getattr(block, _WATCHED, {})
    first, second = expert_parts(block)
    total = torch.zeros_like(hidden_states)
    chosen: list[int] = torch.unique(top_k_index).tolist()
    reached = {number for number in chosen if number < block.num_experts}
    # A watched expert without a token runs on none: its gradient is zero, and not unknown.
    for number in sorted(reached | {number for _, number in watched}):
        tokens, choice = torch.where(top_k_index == number)

        def linear(part: str, rows: Tensor, number: int = number, tokens: Tensor = tokens) -> Tensor:
            layer = watched.get((part, number))
            if layer is None:
                return _multiply(block, part, number, rows)
            result: Tensor = layer(rows, tokens, len(hidden_states))
            return result

        inner = linear(first, hidden_states[tokens])
        inner = block._apply_gate(inner) if block.has_gate else block.act_fn(inner)
        out = linear(second, inner)
        if block.has_post_expert_norm:
            out = block.post_expert_norm(out)
        weighted = out * top_k_weights[tokens, choice, None]
        # A token is among those of an expert once, so the sum does not depend on the order of a GPU's threads.
        total.index_add_(0, tokens, weighted.to(total.dtype))
    return total


def _multiply(block: Any, part: str, number: int, rows: Tensor) -> Tensor:
    bias = getattr(block, f"{part}_bias")[number] if block.has_bias else None
    return nn.functional.linear(rows, _weight(block, part, number), bias)


def _weight(block: Any, part: str, number: int) -> Tensor:
    weight: Tensor = getattr(block, part)[number]
    return weight.mT if block.is_transposed else weight


def _widths(block: Any, part: str) -> tuple[int, int]:
    """Return (O, I) of a part's layers."""
    first, second = getattr(block, part).shape[1:]
    return (second, first) if block.is_transposed else (first, second)


ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, run_experts)
