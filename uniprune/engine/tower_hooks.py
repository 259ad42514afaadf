"""Hooks of a session on the vision tower and the projector: what methods read of them, and stages between blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from torch import Tensor, nn

from uniprune.engine.hooks import Hooks
from uniprune.engine.tower_merging import MergingStage
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
        self._running: Any = None  # of that stage, in the latest call

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
        for number in range(stage.block, last + 1) if stage.plan is not None else ():
            self._attach_merging(hooks, number)

    def _attach_merging(self, hooks: Hooks, number: int) -> None:
        """Install the hooks inside a block that merges."""
        block = self._adapter.vision_blocks()[number]
        parts = self._adapter.merging_parts(block)
        assert parts is not None  # checked
        keys, norm, mlp = parts
        hooks.before(self._adapter.vision_attention(block), self._before_biased)
        hooks.after(keys, self._after_keys)
        hooks.before(norm, partial(self._before_mlp, number))
        hooks.after(mlp, self._after_mlp)
        if number < self._adapter.last_block():
            hooks.add(block.register_forward_hook(self._after_merging, prepend=True))

    def begin(self, args: Args, kwargs: Kwargs, given: Mapping[str, Any]) -> VisionCapture:
        """Return the capture of a call of the tower, with arguments `given` of the adapter's encoder that makes it."""
        grids = self._adapter.grids(args, {**given, **kwargs})
        self.capture = capture = VisionCapture(self._adapter, grids, given)
        if self._stage is not None:
            pixels: Tensor = args[0] if args else next(value for value in kwargs.values() if isinstance(value, Tensor))
            made = TowerStage if self._stage.plan is None else MergingStage
            self._running = capture.stage = made(self._adapter, self._stage, grids, pixels, self._method_time)
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
    def _before_fewer(self, number: int, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        changed: tuple[Args, Kwargs] = self._running.before_block(number, args, kwargs)
        return changed

    def _after_fewer(self, module: nn.Module, args: Args, output: Any) -> Any:
        return self._running.after_last(output)

    def _after_part(self, module: nn.Module, args: Args, output: Any) -> Any:
        return self._running.after_part(output)

    # --- merging inside a block ---------------------------------------------------------------------------------
    def _before_biased(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        changed: tuple[Args, Kwargs] = self._running.before_attention(args, kwargs)
        return changed

    def _after_keys(self, module: nn.Module, args: Args, output: Any) -> None:
        self._running.after_keys(output)

    def _before_mlp(self, number: int, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        hidden = args[0] if args else next(iter(kwargs.values()))
        return (self._running.before_mlp(number, hidden),), {}

    def _after_mlp(self, module: nn.Module, args: Args, output: Any) -> Any:
        return self._running.after_mlp(output)

    def _after_merging(self, module: nn.Module, args: Args, output: Any) -> Any:
        return self._running.after_block(output)
