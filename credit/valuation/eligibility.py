"""Which models may be valued: causal ones, whole, whose gradients pass through every layer. Checked at loading.

The loss of a token is credited with all tokens before it in mind. Where a later token changes an earlier prediction, or
a layer passes no gradient, every number would be computed all the same, and wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from credit.errors import ValuationError
from credit.valuation.layers import layer_shape, linear_layers_and_blocks
from credit.valuation.placement import main_device

SEAM = "value it through the Python seam, credit.valuation.ModuleTask, with the loss that it was trained with"

_TOKENS = 8
"""Length of the two texts that are compared; they differ in the last token."""

_ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}
"""Most by which an earlier logit may move, relative to the largest."""

_NOISE = 8
"""The same in multiples of the move that another neighbour in the batch causes: experts sum in the order of a batch."""

_QUANTISED = ("qweight", "scales", "weight_scale")
"""Attributes of quantised layers that are no `nn.Linear`, as those of GPTQ."""

_SAME = 0.1
"""Most by which the inputs of one token may move, relative to the largest: those of two tokens differ by far more."""

_NAMED = 3


def check_weights(folder: object, model: nn.Module, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Refuse a checkpoint that lacks weights of its model, or holds others than the model's class knows.

    Args:
        folder: the checkpoint, for messages.
        model: the model made from it.
        missing: weights of the model that the checkpoint lacks. transformers would draw them at random at each load.
            Tied weights are not among them.
        unexpected: weights of the checkpoint without a place in the model. Those that the class declares as of no
            importance are not among them.

    Raises:
        ValuationError: with the first names.
    """
    if missing:
        raise ValuationError(
            f"{folder} lacks {len(missing)} weights of its model, such as {min(missing)}; save it with "
            "save_pretrained()"
        )
    if unexpected:
        names = ", ".join(sorted(unexpected)[:_NAMED])
        raise ValuationError(
            f"{folder} holds {len(unexpected)} weights that {type(model).__name__} has no place for, such as {names}: "
            f"it is a model of another kind, as a classifier or reward model is; {SEAM}, or give the language model "
            "as it was saved by its own class"
        )


def check_adapter_weights(folder: object, file: Any, known: Iterable[str]) -> None:
    """Refuse an adapter with weights that found no place in its model.

    Raises:
        ValuationError: with the first names.
    """
    with safe_open(file, framework="pt") as tensors:
        unexpected = set(tensors.keys()) - set(known)
    if unexpected:
        names = ", ".join(sorted(unexpected)[:_NAMED])
        raise ValuationError(
            f"{folder} holds {len(unexpected)} weights without a place in its adapter, such as {names}: it is an "
            f"adapter of another kind of model; {SEAM}"
        )


def check_model(folder: object, module: nn.Module, dtype: torch.dtype) -> None:
    """Run a model on two short texts with another last token, and refuse it if it cannot be valued.

    Args:
        folder: the model, for messages.
        module: the model, in evaluation mode.
        dtype: the dtype that it computes in.

    Raises:
        ValuationError: an earlier prediction moves with a later token, or a quantised layer passes no gradient.
    """
    embeddings: Any = module.get_input_embeddings()  # type: ignore[operator]  # every transformers model has them
    vocabulary, device = embeddings.weight.shape[0], main_device(module)
    # Spread over the vocabulary; never its first tokens, which pad, begin and end texts.
    ids = torch.arange(1, _TOKENS + 1, device=device) * vocabulary // (_TOKENS + 2)
    other = ids.clone()
    other[-1] = vocabulary - 1
    try:
        with _observed(folder, module), _in_order(folder, module):
            first, second = _logits(module, ids, other)
            alone, _ = _logits(module, ids, ids)
    except (RuntimeError, NotImplementedError):
        return  # a kernel that lacks this dtype, for example: valuation will fail on the same pass, and say so
    if len(first) != _TOKENS:
        return  # an adapter of virtual tokens: the loss refuses it by name
    largest = float(first.abs().max())
    moved, noise = (float((first - also)[:-1].abs().max()) for also in (second, alone))
    if moved > max(_ROUNDING.get(dtype, 0.0) * largest, _NOISE * noise):
        raise ValuationError(
            f"{folder} is no causal language model: a later token changes its earlier predictions, as in BERT (a logit "
            f"moved by {moved:.2g} of {largest:.2g}); {SEAM}"
        )


def _logits(module: nn.Module, *texts: Tensor) -> Tensor:
    logits: Tensor = module(input_ids=torch.stack(texts), use_cache=False).logits
    return logits.detach().double()


@contextmanager
def _in_order(folder: object, module: nn.Module) -> Iterator[None]:
    """Context that checks layers with the tokens of both texts in one row: first those of one, then of the other.

    The texts differ in the last token alone, so all others of both have the same inputs.
    """

    def check(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def compare(_part: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0] if args else None
            if not isinstance(x, Tensor) or x.dim() != 2 or len(x) != 2 * _TOKENS or not x.is_floating_point():
                return
            one, other = x.detach().float().view(2, _TOKENS, -1)[:, :-1]
            if float((one - other).abs().max()) > _SAME * float(one.abs().max()):
                raise ValuationError(
                    f"{folder} mixes the tokens of its texts in the layer {name}: nothing tells whose they are; {SEAM}"
                )

        return compare

    handles = [part.register_forward_pre_hook(check(name)) for name, part in linear_layers_and_blocks(module).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _observed(folder: object, module: nn.Module) -> Iterator[None]:
    """Context that checks quantised layers as they run: their inputs must get a gradient from their outputs."""
    quantised = {name: part for name, part in module.named_modules() if is_quantised(part)}
    if not quantised:
        with torch.no_grad():
            yield
        return
    handles: list[RemovableHandle] = []
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]

    def watch(name: str, part: nn.Module) -> None:
        def open_input(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(_leaf(value) for value in args)

        def check(_module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            inputs = [value for value in args if _is_float(value)]
            outputs = output if _is_float(output) else None
            if inputs and outputs is not None and not _passes_gradient(inputs[0], outputs):
                raise ValuationError(
                    f"{folder} is quantised, and its layer {name} ({type(part).__name__}) passes no gradient: all "
                    "below it would get none. Give the model in bf16 or fp32, as model.dequantize() and "
                    "save_pretrained() leave it"
                )
            return output.detach() if _is_float(output) else output

        handles.append(part.register_forward_pre_hook(open_input))
        handles.append(part.register_forward_hook(check))

    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        for name, part in quantised.items():
            watch(name, part)
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def is_quantised(part: nn.Module) -> bool:
    """Return True for a layer whose weights are kept as integers, packed, or as another kind of tensor."""
    if hasattr(part, "_packed_params"):  # torch.ao keeps no parameter at all
        return True
    kept = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
    integers = any(not value.is_floating_point() and value.dtype != torch.bool for value in kept)
    subclass = any(type(value.data) is not Tensor for value in part.parameters(recurse=False))  # as torchao's
    return (integers and layer_like(part)) or subclass


def layer_like(part: nn.Module) -> bool:
    """Return True for a layer that multiplies by a matrix: a linear one, or one with packed or scaled weights."""
    return layer_shape("", part) is not None or any(hasattr(part, name) for name in _QUANTISED)


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _leaf(value: object) -> object:
    return value.detach().requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value


def _passes_gradient(x: Tensor, y: Tensor) -> bool:
    """Return True if x gets a gradient from y that is not all zero, from an arbitrary sum of y."""
    if not y.requires_grad:
        return False
    weights = torch.linspace(1, 2, y.numel(), device=y.device, dtype=torch.float32).view(y.shape).to(y.dtype)
    try:
        (gradient,) = torch.autograd.grad((y * weights).sum(), x, allow_unused=True)
    except RuntimeError:
        return False  # its kernel has no backward pass
    return gradient is not None and bool(gradient.any())
