"""Two simulated accelerators on a machine without any: every tensor has a place, and mixing places is an error.

All data stays on the CPU. Inside the mode `tensor.device` answers with the simulated place ("cpu" for the real CPU,
"cpu:1" and "cpu:2" for the two), `to` and factories move and create there, results are where their inputs are, and what
a GPU would refuse is refused: inputs from two places (a number and indices may come from the CPU), `numpy()`.

The mode also records where the CPU would have to wait for a GPU: numbers and sizes that depend on values there, and
copies from or to it, except those to it that are marked `non_blocking`.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakTensorKeyDictionary

CPU, ONE, TWO = torch.device("cpu"), torch.device("cpu", 1), torch.device("cpu", 2)
DEVICE = Tensor.device.__get__  # type: ignore[attr-defined]
READ = (Tensor.numpy, Tensor.__array__)
INDEXED = (Tensor.__getitem__, Tensor.__setitem__)
LOOKS = (
    *(Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__),
    *(Tensor.nonzero, Tensor.unique, Tensor.masked_select, Tensor.equal, Tensor.allclose, Tensor.unique_consecutive),
    *(torch.nonzero, torch.unique, torch.masked_select, torch.equal, torch.allclose, torch.unique_consecutive),
)
"""Functions whose result needs the values."""


class Places(TorchFunctionMode):
    """The mode; `put` sets the place of a module's weights and buffers.

    Attributes:
        waits: operations the CPU would have waited for, as (function, names of the callers' files, innermost first).
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[tuple[str, tuple[str, ...]]] = []
        self._place: Any = WeakTensorKeyDictionary()

    def put(self, module: nn.Module, device: torch.device) -> None:
        for tensor in (*module.parameters(), *module.buffers()):
            self._place[tensor] = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == DEVICE:
            return self._place.get(args[0], CPU)
        tensors = list(tensors_in((args, kwargs)))
        if self._waits(func, args, kwargs, tensors):
            files = tuple(frame.f_code.co_filename for frame, _ in traceback.walk_stack(sys._getframe(1)))
            self.waits.append((resolve_name(func) or str(func), files))
        if func is Tensor.to or "device" in kwargs:
            target = self._target(func, args, kwargs, tensors)
            if func is Tensor.to:
                args = (args[0], *[target if isinstance(x, torch.device | str) else x for x in args[1:]])
            result = func(*args, **kwargs)
            moved = func is Tensor.to and result is args[0] and target != self._place.get(args[0], CPU)
            result = result.clone() if moved else result
        else:
            target = self._common(func, args, tensors)
            result = func(*args, **kwargs)
        for tensor in tensors_in(result):
            self._place[tensor] = target
        return result

    def _waits(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> bool:
        """Check whether the CPU would wait for a GPU here."""
        away = any(self._place.get(x, CPU) != CPU for x in tensors)
        if func is Tensor.to:
            source, target = self._place.get(args[0], CPU), self._target(func, args, kwargs, tensors)
            blocking = not kwargs.get("non_blocking", False) or target == CPU
            return source != target and blocking and CPU in (source, target)
        if func is Tensor.cpu:
            return away
        if func is torch.tensor:
            return torch.device(kwargs.get("device") or CPU) != CPU
        if func in INDEXED:  # a mask is turned into indices
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            return any(
                isinstance(x, Tensor) and x.dtype == torch.bool and self._place.get(x, CPU) != CPU for x in places
            )
        return away and func in LOOKS

    def _target(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> torch.device:
        """Return the place of the result of `to` or of a factory."""
        named = [x for x in (kwargs.get("device"), *args[1:]) if isinstance(x, torch.device | str)]
        if named:
            return torch.device(named[0])
        others = tensors[1:] if func is Tensor.to else tensors  # x.to(other)
        return self._place.get((others or tensors)[0], CPU) if tensors else CPU

    def _common(self, func: Any, args: Any, tensors: list[Tensor]) -> torch.device:
        """Return the place of all inputs.

        Raises:
            AssertionError: inputs from several places.
        """
        places = [(self._place.get(x, CPU), x) for x in tensors]
        strict = {place for place, x in places if not (place == CPU and (x.ndim == 0 or func in INDEXED))}
        assert len(strict) < 2, f"{resolve_name(func) or func} of tensors on {sorted(map(str, strict))}"
        assert func not in READ or strict <= {CPU}, f"{resolve_name(func) or func} of a tensor on {strict}"
        if func in INDEXED:
            return places[0][0]
        return next(iter(strict), CPU)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dictionaries; torch's own function takes ten times as long."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_in(part)


class Move(ModelHook):  # type: ignore[misc]
    """Accelerate's dispatch at a module: moves the inputs to it, after all forward hooks."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return send_to_device(args, self.device), send_to_device(kwargs, self.device)


def split(places: Places, model: Any, layers: Any, at: int) -> None:
    """Put the decoder layers from `at` on and the last norm on the second place, all else on the first."""
    places.put(model, ONE)
    for module in (*layers[at:], model.get_decoder().norm):
        places.put(module, TWO)
        dispatch(module, TWO)
    for module in (*layers[:at], model.get_output_embeddings()):  # the head's weights may be those of the embedding
        dispatch(module, ONE)


def dispatch(module: nn.Module, device: torch.device) -> None:
    """Add hooks to the module and, as accelerate does, to everything in it that has weights."""
    for part in module.modules():
        if part is module or part.state_dict():
            add_hook_to_module(part, Move(device))
