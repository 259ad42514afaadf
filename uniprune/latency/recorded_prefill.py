"""The inputs of decoder layers, final norm and output head in one prefill, recorded so that they can run again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import Cache

from uniprune.engine.deepstack import deepstack_levels
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter

PLAIN = (bool, int, float, str, torch.dtype, type(None))
"""Types of arguments that are passed on as they are."""
STATES = (Cache, Mapping)
"""Types of arguments that layers write into, for later layers of the same prefill: KV caches and shared keys."""


@dataclass(frozen=True)
class State:
    """The place of a state among a layer's arguments; each run gets a copy of what was there before the first layer.

    Attributes:
        number: of the state in `Segments.states`.
    """

    number: int


@dataclass(frozen=True)
class Call:
    """A call of one module, on what the module before it returned.

    Attributes:
        module: a decoder layer, the final norm or the output head.
        last: number of last tokens it runs on; None for all of them.
        args: positional arguments after the hidden states.
        kwargs: keyword arguments.
    """

    module: nn.Module
    last: int | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def mapped(self, leaf: Callable[[Any], Any]) -> Call:
        """Return the call with `leaf` applied to every argument, in nested tuples to what they hold."""
        kwargs = {name: _mapped(value, leaf) for name, value in self.kwargs.items()}
        return replace(self, args=_mapped(self.args, leaf), kwargs=kwargs)


@dataclass
class Segment:
    """Modules that run one after the other with nothing between them.

    Attributes:
        first: number of the first one; norm and output head are numbered after the layers.
        entering: [B, n, D] its hidden states.
        calls: the modules, with their arguments.
        leaving: [B, m, D] result of the last one.
    """

    first: int
    entering: Tensor
    calls: list[Call]
    leaving: Tensor


@dataclass(frozen=True)
class Segments:
    """A recorded prefill.

    Attributes:
        stretches: its segments, in order: a new one begins where a stage pruned or features were added.
        states: KV cache and other states as they were before the first layer.
    """

    stretches: list[Segment]
    states: list[Any]

    def fresh(self, device: torch.device) -> list[Any]:
        """Return copies of the states for one run, all their tensors on the device already."""
        states = copy.deepcopy(self.states)
        for state in states:
            for layer in getattr(state, "layers", ()):
                for name, value in vars(layer).items():
                    if isinstance(value, Tensor):
                        setattr(layer, name, value.to(device))
        return states


class Recorder:
    """Records the prefill inside the `with` block, as a session that was entered before changes it.

    Args:
        adapter: the model's adapter.
    """

    def __init__(self, adapter: ModelAdapter) -> None:
        self._layers = len(adapter.layers)
        self._modules = [*adapter.layers, adapter.decoder.norm, adapter.model.get_output_embeddings()]
        self._added = range(1, deepstack_levels(adapter) + 1)
        self._hooks = ExitStack()
        self._next, self._running = 0, False
        self._segments: list[Segment] = []
        self._known: dict[int, State] = {}
        self._kept: list[Any] = []  # alive, so that no other object gets the id of a state
        self._states: list[Any] = []

    def __enter__(self) -> Self:
        for number, module in enumerate(self._modules):
            before, after = partial(self._before, number), partial(self._after, number)
            self._hooks.enter_context(module.register_forward_pre_hook(before, with_kwargs=True))
            self._hooks.enter_context(module.register_forward_hook(after))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()
        self._known.clear()
        self._kept.clear()

    def segments(self, stages: Iterable[int]) -> Segments:
        """Return the recorded prefill.

        Args:
            stages: layers before which the method prunes.

        Raises:
            UnsupportedError: a module did not run, or something unknown changes hidden states between layers.
        """
        if self._next < len(self._modules):
            raise UnsupportedError(f"{self._name(self._next)} did not run in the prefill")
        known = {0, *stages, *self._added}
        for segment in self._segments:
            if segment.first not in known:
                raise UnsupportedError(
                    f"the model computes something between {self._name(segment.first - 1)} and "
                    f"{self._name(segment.first)}, which the graphs would leave out"
                )
        return Segments(self._segments, self._states)

    def _name(self, number: int) -> str:
        return (
            f"decoder layer {number}" if number < self._layers else ("final norm", "output head")[number - self._layers]
        )

    # --- hooks --------------------------------------------------------------------------------------------------
    def _before(self, number: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._running = number == self._next
        if not self._running:
            if number < self._layers:
                raise UnsupportedError(f"{self._name(number)} ran out of turn, or more than once")
            return  # a method that reads the final norm of its tokens
        further = dict(kwargs)
        hidden, *more = args or (further.pop("hidden_states"),)
        last, follows = self._link(hidden)
        call = Call(module, last, tuple(more), further).mapped(self._leaf)
        if follows:
            self._segments[-1].calls.append(call)
        else:
            self._segments.append(Segment(number, hidden.clone(), [call], hidden))

    def _after(self, number: int, module: nn.Module, args: Any, output: Any) -> None:
        if self._running:
            self._segments[-1].leaving = output[0] if isinstance(output, tuple) else output
            self._next, self._running = self._next + 1, False

    def _link(self, hidden: Tensor) -> tuple[int | None, bool]:
        """Return how many last tokens of what the module before returned `hidden` is, and whether it is any."""
        if not self._segments:
            return None, False
        leaving = self._segments[-1].leaving
        if hidden is leaving:
            return None, True
        tail = leaving[:, -hidden.shape[1] :]
        same = tail.shape == hidden.shape and tail.stride() == hidden.stride() and tail.data_ptr() == hidden.data_ptr()
        return (hidden.shape[1], True) if same else (None, False)

    def _leaf(self, value: Any) -> Any:
        """Return an argument that can be passed again.

        Raises:
            UnsupportedError: it may hold what graphs would neither copy nor compute.
        """
        if isinstance(value, (Tensor, *PLAIN)):
            return value
        if id(value) not in self._known:
            begun = self._next or (isinstance(value, Mapping) and len(value))
            if begun or not isinstance(value, STATES):
                raise UnsupportedError(
                    f"{self._name(self._next)} receives a {type(value).__name__}, of which is not known what later "
                    "layers read; graphs are made of tensors, plain values and states that are empty before layer 0"
                )
            self._known[id(value)] = State(len(self._states))
            self._kept.append(value)
            self._states.append(copy.deepcopy(value))
        return self._known[id(value)]


def _mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    return tuple(_mapped(one, leaf) for one in value) if isinstance(value, tuple) else leaf(value)
