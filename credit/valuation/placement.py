"""Placement of a model larger than one device: its parts on several devices, in the host's memory, or on disk.

accelerate (extra `big`) places the parts. Its hooks move inputs, and weights of offloaded parts, to the device that
computes, and drop these weights after the part's forward pass. But autograd keeps what its backward pass needs: above
the lowest watched layer, all of them. `OffloadedWeights` lets autograd keep references, and loads the weights again
when the backward pass gets there.

Numbers do not depend on the placement: a part computes the same on every device of one kind, and gradients meet on one.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from credit.errors import ValuationError
from credit.storage import parse_object

SPREAD = "spread"
"""Placement by size: GPUs first, evenly, then the host's memory, then disk."""

_DISK = "disk"


@dataclass(frozen=True, slots=True)
class Placement:
    """Places of a model's parts.

    Attributes:
        device: device of the whole model; None if its parts are placed.
        parts: place of each part by name (`cpu`, `disk`, the number of a GPU), or `auto`, as accelerate reads them.
    """

    device: torch.device | None = None
    parts: Mapping[str, str | int] | str | None = None

    @property
    def uses_gpu(self) -> bool:
        """True if a part is on a GPU."""
        if self.device is not None:
            return self.device.type == "cuda"
        if isinstance(self.parts, Mapping):
            return any(place not in {"cpu", _DISK} for place in self.parts.values())
        return torch.cuda.is_available()


def read_placement(text: str) -> Placement:
    """Read a placement: a device (`cpu`, `cuda:1`), `auto`, `spread`, or a JSON object with the place of each part.

    Raises:
        ValuationError: it names no usable device, or accelerate is missing.
    """
    if text == "auto":
        return Placement(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if text != SPREAD and not text.lstrip().startswith("{"):
        return Placement(_usable(text))
    if find_spec("accelerate") is None:
        raise ValuationError("a model in parts needs accelerate; install it: pip install 'credit[big]'")
    if text == SPREAD:
        return Placement(parts="auto")
    try:
        found = parse_object(text.encode())
    except ValueError as error:
        raise ValuationError(f"the places of a model's parts are no JSON object: {error}") from error
    return Placement(parts={name: _place(name, place) for name, place in found.items()})


def _place(name: str, place: object) -> str | int:
    if place in {"cpu", _DISK}:
        return str(place)
    number = isinstance(place, int) and not isinstance(place, bool)
    device = _usable(f"cuda:{place}" if number else str(place))
    if device.type != "cuda":
        raise ValuationError(f"{name!r} cannot be placed on {place!r}; choose cpu, disk, or a GPU such as cuda:0")
    return device.index or 0


def _usable(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValuationError(f"the device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def disjoint_parts(parts: Mapping[str, str | int], model: nn.Module) -> dict[str, str | int]:
    """Return the places of parts that do not overlap, as accelerate wants them. The longest name decides: `""` is all.

    Raises:
        ValuationError: the model does not have a part, or a part has no place.
    """
    known = {name for name, _ in chain(model.named_modules(), model.named_parameters(), model.named_buffers())}
    example = next((name for name in known if name.count(".") == 2), "")
    for name in parts:
        if name not in known:
            raise ValuationError(
                f"the placement names {name!r}, which the model does not have; its parts are named like {example}"
            )
    found: dict[str, str | int] = {}

    def place(name: str) -> None:
        around = [key for key in parts if key in {"", name} or name.startswith(f"{key}.")]
        if not around:
            raise ValuationError(f'the placement has no place for {name}; place the rest with "": "cpu", for example')
        found[name] = parts[max(around, key=len)]

    def walk(name: str, module: nn.Module) -> None:
        inside = f"{name}." if name else ""
        if not any(key != name and key.startswith(inside) for key in parts):
            place(name)
            return
        for own, _ in chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False)):
            place(inside + own)
        for child, part in module.named_children():
            walk(inside + child, part)

    walk("", model)
    return found


def check_whole(text: str) -> None:
    """Refuse the placement of a model to be trained in parts: offloaded weights cannot change.

    Raises:
        ValuationError: with a remedy.
    """
    if read_placement(text).device is None:
        raise ValuationError("a model in parts cannot be trained; give --device cpu, cuda or cuda:1 for one device")


@contextmanager
def offload_folder() -> Iterator[tuple[Path, Callable[[nn.Module], None]]]:
    """Context to load a model in parts: a folder, and a function that keeps it as long as a model lives.

    The folder is for weights that the model's files hold in another form, as they do those of fused experts; others are
    read from these files. It lies where TMPDIR says.
    """
    logger = logging.getLogger("accelerate.big_modeling")  # it warns of what was asked for: that parts are offloaded
    level = logger.level
    logger.setLevel(logging.ERROR)
    folder = Path(tempfile.mkdtemp(prefix="credit-offload-"))
    kept = []

    def keep(model: nn.Module) -> None:
        kept.append(weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True))

    try:
        yield folder, keep
    finally:
        logger.setLevel(level)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def main_device(model: nn.Module) -> torch.device:
    """Return the device of a model's inputs and loss, where the gradients of all layers meet."""
    hook = _hook_of(model)
    if hook is not None and hook.execution_device is not None:
        return torch.device(hook.execution_device)
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def compute_device(module: nn.Module, model: nn.Module) -> torch.device:
    """Return the device of a module's computation: its parameters', or the one to which accelerate moves them."""
    hooks = (_hook_of(part) for part in module.modules())
    devices = (torch.device(hook.execution_device) for hook in hooks if hook and hook.execution_device is not None)
    own = (parameter.device for parameter in module.parameters())
    return next(chain(devices, own), main_device(model))


def _hook_of(module: nn.Module) -> Any:
    """Return a module's hook of accelerate that moves its inputs or weights; of several the offloading one."""
    hook: Any = getattr(module, "_hf_hook", None)
    aligning = [each for each in getattr(hook, "hooks", [hook]) if hasattr(each, "execution_device")]
    return next((each for each in aligning if each.offload), aligning[0] if aligning else None)


@dataclass(frozen=True, slots=True)
class Reference:
    """Saved view of an offloaded weight."""

    module: nn.Module
    name: str
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


class OffloadedWeights:
    """Weights of a model's offloaded parts: autograd keeps references, and loads a weight for its backward pass.

    Args:
        model: any model; nothing happens if no part of it is offloaded.
    """

    def __init__(self, model: nn.Module) -> None:
        found = ((module, _hook_of(module)) for module in model.modules())
        self._hooks = {module: hook for module, hook in found if hook is not None and hook.offload}
        self._handles: list[RemovableHandle] = []
        self._running: list[nn.Module] = []
        self._loaded: tuple[nn.Module, str, Tensor] | None = None

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def __enter__(self) -> OffloadedWeights:
        for module in self._hooks:
            # accelerate loads the weights inside: later than the one hook, earlier than the other.
            self._handles.append(module.register_forward_pre_hook(lambda module, _args: self._running.append(module)))
            self._handles.append(module.register_forward_hook(self._leave, always_call=True))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._running, self._loaded = [], [], None

    def _leave(self, _module: nn.Module, _args: tuple[Any, ...], _output: object) -> None:
        self._running.pop()

    def saving(self) -> Any:
        """Return a context for a forward pass, in which autograd keeps references in place of offloaded weights."""
        return torch.autograd.graph.saved_tensors_hooks(self.pack, self.unpack) if self else nullcontext()

    def pack(self, tensor: Tensor) -> Tensor | Reference:
        """Return a reference in place of a view of an offloaded weight, and any other tensor as it is."""
        place = tensor.untyped_storage().data_ptr()
        for module in self._running:
            for name, weight in module.named_parameters(recurse=False):
                same = weight.untyped_storage().data_ptr() == place != 0
                if same and weight.is_contiguous() and weight.storage_offset() == 0:
                    return Reference(module, name, tensor.shape, tensor.stride(), int(tensor.storage_offset()))
        return tensor

    def unpack(self, saved: Tensor | Reference) -> Tensor:
        """Return the tensor behind a reference."""
        if isinstance(saved, Tensor):
            return saved
        last = self._loaded
        # One weight at a time: the views of a weight, as of one expert each, follow each other.
        if last is None or last[0] is not saved.module or last[1] != saved.name:
            hook = self._hooks[saved.module]
            self._loaded = last = None
            weight: Tensor = hook.weights_map[saved.name]
            self._loaded = last = (saved.module, saved.name, weight.to(hook.execution_device).contiguous())
        return last[2].as_strided(saved.shape, saved.stride, saved.offset)
