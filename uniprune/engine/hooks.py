"""Hooks of a session on the modules of a model, removed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn


class Hooks:
    """Installed hooks.

    Args:
        layers: the decoder's layers.
        before_layer: hook of those that `on_layers` names; its first argument is the layer's number.
    """

    def __init__(self, layers: Sequence[nn.Module], before_layer: Callable[..., Any]) -> None:
        self._layers, self._before_layer = tuple(layers), before_layer
        self._handles: list[Any] = []
        self._layer_handles: list[Any] = []
        self._hooked = range(0)

    def before(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Call `hook` before forwards of a module."""
        self.add(module.register_forward_pre_hook(hook, with_kwargs=True))

    def after(self, module: nn.Module, hook: Callable[..., Any], always_call: bool = False) -> None:
        """Call `hook` after forwards of a module, `always_call` also after exceptions."""
        self.add(module.register_forward_hook(hook, always_call=always_call))

    def add(self, handle: Any) -> None:
        """Keep anything else that `remove` ends by its own `remove`."""
        self._handles.append(handle)

    def on_layers(self, layers: range) -> None:
        """Hook these decoder layers only, ahead of all other hooks, which so receive what the layer receives."""
        if layers == self._hooked:
            return
        while self._layer_handles:
            self._layer_handles.pop().remove()
        for layer in layers:
            hook = partial(self._before_layer, layer)
            handle = self._layers[layer].register_forward_pre_hook(hook, with_kwargs=True, prepend=True)
            self._layer_handles.append(handle)
        self._hooked = layers

    def remove(self) -> None:
        """Remove all hooks."""
        self.on_layers(range(0))
        while self._handles:
            self._handles.pop().remove()
