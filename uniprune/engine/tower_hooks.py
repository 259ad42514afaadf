"""Hooks of a session on the vision tower and the projector: what methods read of them, and stages between blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from torch import Tensor, nn

from uniprune.engine.hooks import Hooks
from uniprune.engine.tower_stage import TowerStage
from uniprune.engine.vision import VisionCapture
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Stage

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class TowerHooks:
    """The tower's calls during a session.

    Args:
        adapter: the model's adapter.
        method_time: opens the timer's method span.

    Attributes:
        capture: the latest call, filled by hooks; None after a forward.
    """

    def __init__(self, adapter: ModelAdapter, method_time: Callable[[], AbstractContextManager[None]]) -> None:
        self.capture: VisionCapture | None = None
        self._adapter, self._method_time = adapter, method_time
        self._stage: Stage | None = None

    def attach(self, hooks: Hooks, read: Collection[int], stage: Stage | None) -> None:
        """Install the hooks.

        Args:
            hooks: removed together.
            read: blocks that the method reads.
            stage: pruning point in the tower at which something is dropped, if any.
        """
        adapter, blocks = self._adapter, self._adapter.vision_blocks()
        self._stage = stage
        hooks.before(adapter.projector, self._before_projector)
        for number in read:
            hooks.before(blocks[number], partial(self._before_block, number))
            hooks.after(blocks[number], partial(self._after_block, number))
            hooks.before(adapter.vision_attention(blocks[number]), partial(self._before_attention, number))
        if stage is None or stage.block is None:
            return
        last = adapter.last_block()
        for number in range(stage.block, last + 1):
            hooks.before(blocks[number], partial(self._before_fewer, number))
        # Ahead of hooks of transformers that record states.
        hooks.add(blocks[last].register_forward_hook(self._after_fewer, prepend=True))
        for part in adapter.token_parts():
            hooks.add(part.register_forward_hook(self._after_part, prepend=True))

    def begin(self, args: Args, kwargs: Kwargs, given: Mapping[str, Any]) -> VisionCapture:
        """Return the capture of a call of the tower, with arguments `given` of the adapter's encoder that makes it."""
        grids = self._adapter.grids(args, {**given, **kwargs})
        self.capture = capture = VisionCapture(self._adapter, grids, given)
        if self._stage is not None:
            pixels: Tensor = args[0] if args else next(value for value in kwargs.values() if isinstance(value, Tensor))
            capture.stage = TowerStage(self._adapter, self._stage, grids, pixels, self._method_time)
        return capture

    # --- what methods read --------------------------------------------------------------------------------------
    def _before_block(self, number: int, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self.capture is not None:
            self.capture.blocks[number] = args[0] if args else kwargs["hidden_states"]

    def _after_block(self, number: int, module: nn.Module, args: Args, output: Any) -> None:
        if self.capture is not None:
            self.capture.leaving[number] = output[0] if isinstance(output, tuple) else output

    def _before_attention(self, number: int, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self.capture is not None:
            self.capture.attentions[number] = (args[0] if args else kwargs["hidden_states"], kwargs)

    def _before_projector(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self.capture is not None:
            self.capture.entered = args[0] if args else next(iter(kwargs.values()))

    # --- stages -------------------------------------------------------------------------------------------------
    def _before_fewer(self, number: int, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        stage = None if self.capture is None else self.capture.stage
        return None if stage is None else stage.before_block(number, args, kwargs)

    def _after_fewer(self, module: nn.Module, args: Args, output: Any) -> Any:
        stage = None if self.capture is None else self.capture.stage
        return output if stage is None else stage.after_last(output)

    def _after_part(self, module: nn.Module, args: Args, output: Any) -> Any:
        stage = None if self.capture is None else self.capture.stage
        return output if stage is None else stage.after_part(output)
