"""A counter of the operations that the engine and its methods add to a forward."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

OURS = ("/uniprune/engine/", "/uniprune/pruning/", "/uniprune/modeling/", "/methods/", "/models/")
NOT_RUN = ("lift_fresh", "detach", "_unsafe_view", "_local_scalar_dense")
"""Operations that do not compute anything, besides views."""
ONE_KERNEL = ("/uniprune/pruning/greedy.py",)
"""Files whose functions are one kernel on a GPU: what they run on a CPU counts as one operation a call."""


class Operations(TorchDispatchMode):
    """A dispatch mode that counts operations started by the engine, methods and adapters; views are not counted.

    Attributes:
        count: name of the operation -> how often it ran.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not typed
        self.count = Counter[str]()
        self._calls: list[FrameType] = []

    @property
    def total(self) -> int:
        """Number of operations."""
        return self.count.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and name not in NOT_RUN:
            self._note(name, sys._getframe(1))
        return func(*args, **(kwargs or {}))

    def _note(self, name: str, frame: FrameType | None) -> None:
        ours, kernel = False, None
        while frame is not None:
            file = frame.f_code.co_filename
            ours = ours or any(part in file and "/site-packages/" not in file for part in OURS)
            if any(part in file for part in ONE_KERNEL):
                kernel = frame
            frame = frame.f_back
        if kernel is not None:
            if any(kernel is call for call in self._calls):
                return
            self._calls.append(kernel)
            name = kernel.f_code.co_name
        if ours:
            self.count[name] += 1
