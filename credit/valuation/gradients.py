"""Projected per-example gradients of a frozen model: hooks carry tensors, the mathematics is one function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from credit.errors import ValuationError
from credit.valuation.layers import how_to_leave_out
from credit.valuation.projection import Hashing, LayerProjection, Side, without_copies

Sink = Callable[[Tensor], None]
"""Gets a layer's output gradients δ (N, T, O)."""

Observer = Callable[[Sequence[str], Tensor], Sequence[Sink]]
"""Gets the names of layers that see the same inputs x (N, T, I), and returns the sink of each one's output gradients.

These are layers that follow each other, such as those of an attention's queries, keys and values. Each is named once.
"""


def project(values: Tensor, side: Side) -> Tensor:
    """Project the last dimension: values (..., I) -> (..., R)."""
    if side is None:
        return values
    if isinstance(side, Hashing):
        return side.sum(values, dim=-1)
    # The projection takes the dtype of the values, which under autocast is not that of the weights.
    return values @ side.to(values.dtype).mT


def projected_gradient(x: Tensor, dy: Tensor, p_out: Side) -> Tensor:
    """Per-example LoGra gradient: sum over tokens of the outer products of both projected sides.

    Args:
        x: projected inputs (N, T, R): N examples, T tokens, rank R.
        dy: output gradients (N, T, O).
        p_out: their projection to S.

    Returns:
        (N, S, R), in float32 or better (arXiv:2405.13954, eq. 6).
    """
    if isinstance(p_out, Hashing) and x.shape[2] < x.shape[1]:  # fewer numbers to hash after the product
        return p_out.sum(_outer_products(dy, x), dim=1)
    return _outer_products(project(dy, p_out), x)


def _outer_products(dy: Tensor, x: Tensor) -> Tensor:
    """Sum over tokens of δ xᵀ: (N, T, S) and (N, T, R) -> (N, S, R), in float32 or better."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.is_cuda and x.dtype == dy.dtype != dtype:
        # Products of two bf16 numbers are exact in float32, in which they are summed: nothing is lost.
        return torch.bmm(dy.mT, x, out_dtype=dtype)
    return torch.bmm(dy.to(dtype).mT, x.to(dtype))


@dataclass(frozen=True, slots=True)
class Cut:
    """How the windows of a batch are cut into examples: cells of positions, and whose each is.

    What lies on the device is made once for a batch, so that no layer has to wait for the device to look at it.

    Attributes:
        length: positions of a cell.
        width: positions of a window, T, padding included.
        cells: (K,) int64: the cells that examples have, cell c of window n being number n·C + c; None for all of them,
            in this order, each an example of its own.
        owner: (K,) int64: the example that each of these cells belongs to.
        examples: number of examples M.
    """

    length: int
    width: int
    cells: Tensor | None
    owner: Tensor
    examples: int


def cut_gradient(x: Tensor, dy: Tensor, p_out: Side, cut: Cut) -> Tensor:
    """`projected_gradient` of parts of windows: x (N, T, R) and dy (N, T, O) -> (M, S, R), one for each example.

    Each has the terms of its own positions, so that the parts of a window sum to its gradient.
    """
    hashed = isinstance(p_out, Hashing)
    if not hashed:
        dy, p_out = project(dy, p_out), None
    whole = cut.width // cut.length * cut.length
    # Cells of all windows in one product. Where something is left over, that takes copies, but not of a vocabulary.
    step = cut.length if hashed and whole < cut.width else max(whole, 1)
    spans = [(low, min(low + step, whole)) for low in range(0, whole, step)]
    spans += [(whole, cut.width)] if whole < cut.width else []
    parts = [
        projected_gradient(_cells(x[:, low:high], cut.length), _cells(dy[:, low:high], cut.length), p_out)
        for low, high in spans
    ]
    by_window = [part.view(len(x), -1, *part.shape[1:]) for part in parts]
    by_cell = (torch.cat(by_window, 1) if len(spans) > 1 else by_window[0]).flatten(0, 1)
    if cut.cells is None:
        return by_cell
    total = by_cell.new_zeros(cut.examples, *by_cell.shape[1:])
    return total.index_add_(0, cut.owner, by_cell.index_select(0, cut.cells))


def _cells(values: Tensor, length: int) -> Tensor:
    """Cut positions into cells: (N, T, W) -> (N·C, length, W), or as they are where they are fewer than one cell's."""
    return values if values.shape[1] <= length else values.reshape(-1, length, values.shape[2])


class _Tap(torch.autograd.Function):
    """Identity whose backward hands the gradient to `sink` and passes it on only where something below needs it.

    `anchor` is a dummy that requires gradients, so that the tap is part of the graph although all weights are
    frozen. Below the lowest tap nothing requires gradients, and the backward pass ends there.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, anchor: Tensor, sink: Sink) -> Tensor:
        ctx.sink = sink
        # The same memory, but no view of y: autograd refuses to change a view in place that a function has made, and
        # some models (Falcon) add to a layer's output in place.
        return y.new_empty(0).set_(y.untyped_storage(), y.storage_offset(), y.shape, y.stride())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        (dy,) = grads
        ctx.sink(dy)
        return (dy if ctx.needs_input_grad[0] else None), None, None


@dataclass(slots=True)
class _Use:
    """A use of a layer in a forward pass; its sink is there when it is known which others see the same inputs."""

    layer: str
    sink: Sink | None = None


class ModelTap:
    """Context in which both sides of a model's watched layers can be seen: inputs x and output gradients δ.

    Inside, the model is in evaluation mode and all its parameters are frozen (no weight gradient is formed). On
    exit, also by an exception, hooks, `requires_grad` flags and the training modes of all modules are as before.

    Args:
        model: any module.
        layers: the layers to watch, by name.
        observe: see `Observer`; called in the forward pass, when other inputs are seen or the pass ends. What it keeps
            of x is all that is kept.
        flat: whether inputs (N, I) are taken for examples of one position, T = 1. More dimensions than three are
            always taken for more positions.
        freeze: whether the model is put into evaluation mode and frozen; else it stays as it is, and only what runs
            within `watching` is seen.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        observe: Observer,
        *,
        flat: bool = False,
        freeze: bool = True,
    ) -> None:
        self._model = model
        self._layers = layers
        self._observe = observe
        self._freeze = freeze
        self._least_dimensions = 2 if flat else 3
        self._handles: list[RemovableHandle] = []
        self._flags: list[tuple[nn.Parameter, bool]] = []
        self._modes: list[tuple[nn.Module, bool]] = []
        self._batch = 0
        self._inputs: Tensor | None = None
        self._uses: list[_Use] = []
        self._anchor = torch.empty(0)

    def __enter__(self) -> Self:
        if self._freeze:
            self._flags = [(p, p.requires_grad) for p in self._model.parameters()]
            self._modes = [(m, m.training) for m in self._model.modules()]
        device = next(self._model.parameters()).device
        self._anchor = torch.zeros((), device=device, requires_grad=True)
        try:
            for parameter, _ in self._flags:
                parameter.requires_grad_(False)
            if self._freeze:
                self._model.eval()
            for name, module in self._layers.items():
                self._handles.append(module.register_forward_hook(self._hook(name), with_kwargs=True))
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def run(self, loss: Callable[[], Tensor], batch_size: int) -> None:
        """Run one forward and one activation-only backward pass.

        Args:
            loss: runs the model on a batch and returns the sum over its examples of their losses (nats).
            batch_size: number of examples N in the batch.

        Raises:
            ValuationError: the inputs of a watched layer are not one row of positions for each example.
        """
        with self.watching(batch_size):
            self._pass(loss)

    def _pass(self, loss: Callable[[], Tensor]) -> None:
        with torch.enable_grad():
            value = loss()
            if value.dim():
                raise ValuationError(f"the loss has shape {tuple(value.shape)}; it must be the sum over the examples")
            value.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
        self._anchor.grad = None

    @contextmanager
    def watching(self, batch_size: int) -> Iterator[None]:
        """Context in which the passes of one batch are seen, of `batch_size` examples."""
        self._batch = batch_size
        try:
            yield
        finally:
            self._batch = 0
            self._inputs, self._uses = None, []

    def _see(self, layer: str, inputs: Tensor) -> _Use:
        """Note that a layer sees inputs, which may be those that others have just seen."""
        if inputs is not self._inputs or any(use.layer == layer for use in self._uses):
            self._observe_seen()
            self._inputs = inputs
        use = _Use(layer)
        self._uses.append(use)
        return use

    def _observe_seen(self) -> None:
        """Hand over the inputs that were seen last: nobody else will see them in this pass.

        They are as they were: a model that changes a layer's inputs in place cannot be trained.
        """
        inputs, uses = self._inputs, self._uses
        self._inputs, self._uses = None, []
        if inputs is None:
            return
        sinks = self._observe([use.layer for use in uses], _by_position(inputs.detach()))
        for use, sink in zip(uses, sinks, strict=True):
            use.sink = sink

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor | None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], y: Tensor) -> Tensor | None:
            if not (self._batch and torch.is_grad_enabled()):
                return None
            x = [*args, *named.values()][0]  # a linear layer takes one input, by place or by name
            if x.dim() < self._least_dimensions or x.shape[0] != self._batch:
                raise ValuationError(
                    f"layer {name} sees inputs of shape {tuple(x.shape)}, not ({self._batch}, tokens, width): "
                    f"its examples cannot be told apart; {how_to_leave_out(name)}"
                )
            use = self._see(name, x)

            def backward(dy: Tensor) -> None:
                self._observe_seen()
                assert use.sink is not None  # noqa: S101  # all uses have been observed
                use.sink(_by_position(dy))

            tapped: Tensor = _Tap.apply(y, self._anchor, backward)  # type: ignore[no-untyped-call]  # torch leaves Function.apply untyped
            return tapped

        return hook

    def _restore(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)
        for module, mode in self._modes:
            module.training = mode
        self._flags, self._modes = [], []


def _by_position(values: Tensor) -> Tensor:
    """(N, I) or (N, ..., I) -> (N, T, I)."""
    return values.unsqueeze(1) if values.dim() == 2 else values.flatten(1, -2)


class GradientTap(ModelTap):
    """Context in which a model yields projected per-example gradients of its watched layers."""

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        projections: Mapping[str, LayerProjection],
        *,
        flat: bool = False,
        freeze: bool = True,
    ) -> None:
        super().__init__(model, layers, self._project, flat=flat, freeze=freeze)
        self._projections = without_copies(
            {
                name: projections[name].to(parameter.device, parameter.dtype)
                for name, module in layers.items()
                for parameter in [next(module.parameters())]
            }
        )
        self._stacked: dict[tuple[int, ...], Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._cut: Cut | None = None

    def collect(self, loss: Callable[[], Tensor], batch_size: int, cut: Cut | None = None) -> dict[str, Tensor]:
        """Return the gradients (M, S, R) of each example's loss in the projected weights of every watched layer.

        Args:
            loss: runs the model on a batch and returns the sum over its windows of their losses (nats).
            batch_size: number of windows N in the batch.
            cut: which example every part of a window belongs to; without it, each window is one, M = N.

        Raises:
            ValuationError: a watched layer took no part in the loss, or its examples cannot be told apart.
        """
        try:
            with self.watching(batch_size, cut):
                self._pass(loss)
        except BaseException:
            self._sums = {}  # a pass that failed leaves nothing that the next could take for its own
            raise
        return self.take()

    @contextmanager
    def watching(self, batch_size: int, cut: Cut | None = None) -> Iterator[None]:
        """Context in which the passes of one batch are seen, of `batch_size` windows, which are cut into examples."""
        self._cut = cut
        with super().watching(batch_size):
            yield

    def take(self) -> dict[str, Tensor]:
        """Return what the passes of a batch have left: gradients (M, S, R) of every watched layer.

        Raises:
            ValuationError: a watched layer took no part in the loss.
        """
        sums, self._sums = self._sums, {}
        for name in self._projections:
            if name not in sums:
                raise ValuationError(f"layer {name} took no part in the loss; {how_to_leave_out(name)}")
        return sums

    def _project(self, layers: Sequence[str], x: Tensor) -> list[Sink]:
        cut = self._cut
        if cut and x.shape[1] != cut.width:
            raise ValuationError(
                f"layer {layers[0]} sees {x.shape[1]} positions where the model reads {cut.width} tokens: parts of a "
                "text cannot be told apart there; leave the layer out, or do not cut windows (--example-length none)"
            )
        projected = self._project_inputs(x, [self._projections[layer].p_in for layer in layers])
        return [self._sink(layer, px, cut) for layer, px in zip(layers, projected, strict=True)]

    def _project_inputs(self, x: Tensor, sides: Sequence[Tensor | None]) -> list[Tensor]:
        """Project inputs for each layer that sees them, in one product: they are read once."""
        different = {id(side): side for side in sides if side is not None}
        projected: dict[int, Tensor] = {}
        if different:
            key = tuple(different)
            if key not in self._stacked:
                self._stacked[key] = torch.cat(list(different.values()))
            ranks = [len(side) for side in different.values()]
            projected = dict(zip(key, project(x, self._stacked[key]).split_with_sizes(ranks, -1), strict=True))
        return [x if side is None else projected[id(side)] for side in sides]

    def _sink(self, layer: str, px: Tensor, cut: Cut | None) -> Sink:
        p_out = self._projections[layer].p_out

        def sink(dy: Tensor) -> None:
            gradient = projected_gradient(px, dy, p_out) if cut is None else cut_gradient(px, dy, p_out, cut)
            # A layer that is used several times in one pass has the sum of its uses as its gradient.
            before = self._sums.get(layer)
            self._sums[layer] = gradient if before is None else before + gradient

        return sink
