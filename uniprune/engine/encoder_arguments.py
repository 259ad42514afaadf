"""Arguments of the methods that run a model's vision tower: sizes of images, images per prompt, frames.

`generate` calls `get_image_features` of the base model before any forward, and keeps these arguments to itself. So no
hook on a module sees them, and the session stands in for the method on the instance, for families that name it in
`encoders`. It calls the model's own method with the same arguments and returns its result; leaving the session removes
it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn


class EncoderArguments:
    """Stands in for a method of a module, and shows the arguments of every call; removed like a hook.

    Args:
        module: the module.
        name: its method.
        show: called with the arguments by name before the method runs, and with none afterwards. In place of the first
            one, the pixels, it gets their shape under the name of the method, so that nothing keeps them.
    """

    def __init__(self, module: nn.Module, name: str, show: Callable[[Mapping[str, Any]], None]) -> None:
        self._module, self._name, self._show = module, name, show
        self._before = vars(module).get(name)  # of another wrapper on the instance, if any
        self._method = getattr(module, name)
        self._signature = inspect.signature(self._method)
        functools.update_wrapper(self, self._method)  # `generate` reads the signature
        vars(module)[name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method."""
        (_, pixels), *others = self._signature.bind(*args, **kwargs).arguments.items()
        self._show({self._name: tuple(pixels.shape), **dict(others)})
        try:
            return self._method(*args, **kwargs)
        finally:
            self._show({})

    def remove(self) -> None:
        """Leave the module as it was."""
        if self._before is not None:
            vars(self._module)[self._name] = self._before
        else:
            del vars(self._module)[self._name]
