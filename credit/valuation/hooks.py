"""Hooks on a frozen model: they carry a layer's inputs and output gradients, and change no number.

Legend: N windows of a batch, M examples, T positions, I and O widths of a layer's inputs and outputs, R and S ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from credit.errors import ValuationError
from credit.valuation.experts import ExpertLinear, Routing, experts_one_by_one
from credit.valuation.gradients import WindowCut, cut_gradient, loss_scale
from credit.valuation.influence import project, projected_gradient
from credit.valuation.layers import how_to_leave_out
from credit.valuation.placement import OffloadedWeights, compute_device, main_device
from credit.valuation.projection import LayerProjection, without_copies

Sink = Callable[[Tensor], None]
"""Takes a layer's output gradients δ (N, T, O), or those of an expert's tokens (K, O)."""

Observer = Callable[[Sequence[str], Tensor, Routing | None], Sequence[Sink]]
"""Takes the names of layers with the same inputs x (N, T, I), and returns the sink of each one's output gradients.

Such layers follow each other: those of an attention's queries, keys and values, for example. Each is named once.
With a routing, the layer is an expert's: its inputs (K, I) and output gradients (K, O) are those of its K tokens alone.
"""


class _Tap(torch.autograd.Function):
    """Identity with a backward that hands the gradient to `sink`, and passes it on only if something below needs it.

    `anchor` is a dummy that requires gradients: it makes the tap part of the graph although all weights are frozen.
    Below the lowest tap nothing requires gradients, and the backward pass ends there.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, anchor: Tensor, sink: Sink) -> Tensor:
        ctx.sink = sink
        # The same memory, but no view of y: some models (Falcon) add to a layer's output in place, and autograd refuses
        # that for a view that a function returned.
        return y.new_empty(0).set_(y.untyped_storage(), y.storage_offset(), y.shape, y.stride())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        (dy,) = grads
        ctx.sink(dy)
        return (dy if ctx.needs_input_grad[0] else None), None, None


@dataclass(slots=True)
class _Use:
    """A use of a layer in a forward pass. It gets its sink once all layers with the same inputs have run."""

    layer: str
    sink: Sink | None = None


class ModelTap:
    """Context that shows both sides of a model's watched layers: inputs x and output gradients δ.

    Inside, the model is in evaluation mode and all its parameters are frozen, so no weight gradient is formed. On
    exit, also by an exception, hooks, `requires_grad` flags and the training modes of all modules are as before.

    Args:
        model: any module.
        layers: the layers to watch, by name.
        observe: called in the forward pass with the inputs, as soon as other inputs are seen or the pass ends. Nothing
            else keeps x.
        flat: True to take inputs (N, I) for examples of one position, T = 1. Inputs of more than three dimensions
            always have more positions.

    Attributes:
        offloaded: the weights of offloaded parts, for what autograd saves in a pass.
    """

    def __init__(
        self, model: nn.Module, layers: Mapping[str, nn.Module], observe: Observer, *, flat: bool = False
    ) -> None:
        self._model = model
        self._layers = layers
        self._observe = observe
        self._least_dimensions = 2 if flat else 3
        self._handles: list[RemovableHandle] = []
        self._flags: list[tuple[nn.Module, str, bool]] = []
        self._modes: list[tuple[nn.Module, bool]] = []
        self._batch = 0
        self._positions: int | None = None
        self._inputs: Tensor | None = None
        self._routing: Routing | None = None
        self._uses: list[_Use] = []
        self._anchor = torch.empty(0)
        self._changes = ExitStack()
        self._scale = loss_scale(_dtype_of(model, model))
        self.offloaded = OffloadedWeights(model)

    def __enter__(self) -> Self:
        # By name: a weight that comes back from disk for a pass is a parameter of its own.
        parts = list(self._model.modules())
        self._flags = [(m, name, p.requires_grad) for m in parts for name, p in m.named_parameters(recurse=False)]
        # Of each module: `model.train()` would also thaw those that their owner keeps in evaluation mode.
        self._modes = [(m, m.training) for m in parts]
        # With every parameter frozen, autograd would record nothing: one input must want a gradient.
        self._anchor = torch.zeros((), device=main_device(self._model), requires_grad=True)
        try:
            self._model.requires_grad_(False)
            self._model.eval()
            self._changes.enter_context(self.offloaded)
            self._changes.enter_context(experts_one_by_one(self._layers.values()))
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

    def run(self, loss: Callable[[], Tensor], batch_size: int, positions: int | None = None) -> None:
        """Run one forward and one activation-only backward pass.

        Args:
            loss: runs the model on a batch and returns the sum over its windows of their losses (nats).
            batch_size: number of windows N in the batch.
            positions: positions T of a window. A sequence model's layer may then see all tokens in one row, (N·T, I),
                as inside a mixture of experts: window by window, which `eligibility` checks.

        Raises:
            ValuationError: the inputs of a watched layer are not one row of positions for each window.
        """
        self._batch, self._positions = batch_size, positions
        try:
            with torch.enable_grad():
                with self.offloaded.saving():
                    value = loss()
                if value.dim():
                    shape = tuple(value.shape)
                    raise ValuationError(f"the loss has shape {shape}; it must be the sum over the examples")
                value.backward(torch.full_like(value, self._scale))  # type: ignore[no-untyped-call]  # untyped in torch
            self._anchor.grad = None
        finally:
            self._batch = 0
            self._inputs, self._routing, self._uses = None, None, []

    def _see(self, layer: str, inputs: Tensor, routing: Routing | None) -> _Use:
        """Note a layer's inputs, which may be those of the layers just before."""
        # By identity: query, key and value read the same tensor. A layer in use again starts anew.
        if inputs is not self._inputs or any(use.layer == layer for use in self._uses):
            self._observe_seen()
            self._inputs, self._routing = inputs, routing
        use = _Use(layer)
        self._uses.append(use)
        return use

    def _observe_seen(self) -> None:
        """Hand over the last inputs: no further layer will see them in this pass.

        They are unchanged, since a model that changes a layer's inputs in place cannot be trained.
        """
        inputs, routing, uses = self._inputs, self._routing, self._uses
        self._inputs, self._routing, self._uses = None, None, []
        if inputs is None:
            return
        inputs = inputs.detach() if routing else self._by_position(inputs.detach())
        sinks = self._observe([use.layer for use in uses], inputs, routing)
        for use, sink in zip(uses, sinks, strict=True):
            use.sink = sink

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor | None]:
        def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any], y: Tensor) -> Tensor | None:
            # Passes without a gradient (generation, a probe) are nobody's examples.
            if not (self._batch and torch.is_grad_enabled()):
                return None
            # A linear layer takes one input, by place or by name. It may come from the device of the layer before.
            x = [*args, *named.values()][0].to(y.device)
            routing = self._routing_of(*args[1:]) if isinstance(module, ExpertLinear) else None
            if not (routing or self._tells_apart(x)):
                raise ValuationError(
                    f"layer {name} sees inputs of shape {tuple(x.shape)}, not ({self._batch}, tokens, width): "
                    f"its examples cannot be told apart; {how_to_leave_out(name)}"
                )
            use = self._see(name, x, routing)

            def backward(dy: Tensor) -> None:
                self._observe_seen()
                assert use.sink is not None  # noqa: S101  # all uses have been observed
                if self._scale != 1:
                    dy = dy.float() / self._scale
                use.sink(dy if routing else self._by_position(dy))

            tapped: Tensor = _Tap.apply(y, self._anchor, backward)  # type: ignore[no-untyped-call]  # torch leaves Function.apply untyped
            return tapped

        return hook

    def _tells_apart(self, x: Tensor) -> bool:
        """Return True for inputs (N, T, I) or with more positions, or all tokens of the batch in one row."""
        if x.dim() >= self._least_dimensions and x.shape[0] == self._batch:
            return True
        return x.dim() == 2 < self._least_dimensions and x.shape[0] == self._batch * (self._positions or 0)

    def _by_position(self, values: Tensor) -> Tensor:
        """Return values with one dimension of positions: (N, I), (N·T, I) or (N, ..., I) -> (N, T, I)."""
        return values.reshape(self._batch, -1, values.shape[-1])

    def _routing_of(self, tokens: Tensor, all_tokens: int) -> Routing | None:
        """Return the places of an expert's tokens; None unless its block has those of a batch window by window."""
        positions, rest = divmod(all_tokens, self._batch)
        return None if rest else Routing(tokens, self._batch, positions)

    def _restore(self) -> None:
        self._changes.close()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for part, name, flag in self._flags:
            part.get_parameter(name).requires_grad_(flag)
        for module, mode in self._modes:
            module.training = mode
        self._flags, self._modes = [], []


def _dtype_of(module: nn.Module, model: nn.Module) -> torch.dtype:
    """Return the dtype in which a layer computes: a quantised one keeps its weights in another."""
    parameters = chain(module.parameters(), model.parameters())
    return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)


class GradientTap(ModelTap):
    """Context that yields projected per-example gradients of a model's watched layers."""

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        projections: Mapping[str, LayerProjection],
        *,
        flat: bool = False,
    ) -> None:
        super().__init__(model, layers, self._project, flat=flat)
        self._projections = without_copies(
            {
                name: projections[name].to(compute_device(module, model), _dtype_of(module, model))
                for name, module in layers.items()
            }
        )
        self._home = main_device(model)
        self._stacked: dict[tuple[int, ...], Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._cut: WindowCut | None = None

    def collect(
        self,
        loss: Callable[[], Tensor],
        batch_size: int,
        cut: WindowCut | None = None,
        positions: int | None = None,
    ) -> dict[str, Tensor]:
        """Return the gradients (M, S, R) of each example's loss in the projected weights of every watched layer.

        Args:
            loss: runs the model on a batch and returns the sum over its windows of their losses (nats).
            batch_size: number of windows N in the batch.
            cut: the examples of the windows; without it each window is one, M = N.
            positions: see `run`.

        Raises:
            ValuationError: a watched layer took no part in the loss, or its examples cannot be told apart.
        """
        self._cut = cut
        try:
            self.run(loss, batch_size, positions)
            sums = self._sums
        finally:
            self._sums = {}  # a failed pass leaves nothing for the next
        for name in self._projections:
            if name not in sums:
                raise ValuationError(f"layer {name} took no part in the loss; {how_to_leave_out(name)}")
        return {name: gradient.to(self._home) for name, gradient in sums.items()}

    def _project(self, layers: Sequence[str], x: Tensor, routing: Routing | None) -> list[Sink]:
        cut = self._cut
        positions = routing.positions if routing else x.shape[1]
        if cut and positions != cut.width:
            raise ValuationError(
                f"layer {layers[0]} sees {positions} positions where the model reads {cut.width} tokens: parts of a "
                "text cannot be told apart there; leave the layer out, or do not cut windows (--example-length none)"
            )
        projected = self._project_inputs(x, [self._projections[layer].p_in for layer in layers])
        return [self._sink(layer, px, cut, routing) for layer, px in zip(layers, projected, strict=True)]

    def _project_inputs(self, x: Tensor, sides: Sequence[Tensor | None]) -> list[Tensor]:
        """Project inputs for all layers that share them in one product, to read them once."""
        different = {id(side): side for side in sides if side is not None}
        projected: dict[int, Tensor] = {}
        if different:
            key = tuple(different)
            if key not in self._stacked:
                self._stacked[key] = torch.cat(list(different.values()))
            ranks = [len(side) for side in different.values()]
            projected = dict(zip(key, project(x, self._stacked[key]).split_with_sizes(ranks, -1), strict=True))
        return [x if side is None else projected[id(side)] for side in sides]

    def _sink(self, layer: str, px: Tensor, cut: WindowCut | None, routing: Routing | None) -> Sink:
        p_out = self._projections[layer].p_out
        if routing:  # spread once projected: an expert has few of a batch's tokens, and R is less than I
            px = routing.spread(px)

        def sink(dy: Tensor) -> None:
            side = p_out
            if routing:
                dy, side = routing.spread(project(dy, p_out)), None
            gradient = projected_gradient(px, dy, None, side) if cut is None else cut_gradient(px, dy, side, cut)
            # The gradient of a layer with several uses in one pass is the sum over its uses.
            before = self._sums.get(layer)
            self._sums[layer] = gradient if before is None else before + gradient

        return sink
