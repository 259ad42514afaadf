"""Vision-tower quantities on demand, computed from what hooks captured of one call of the tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from uniprune.engine.kept_tokens import Bools, Ints
from uniprune.engine.tower_attention import exchanged, from_others, received
from uniprune.errors import PruningError, UnsupportedError
from uniprune.modeling.adapter import ModelAdapter, Span
from uniprune.modeling.image_layout import ImageLayout
from uniprune.modeling.tower_work import TowerWork
from uniprune.pruning.view import Grid, TowerLayer

DEEPSTACK = "deepstack_features"
"""Field of a tower's output with the features that a decoder adds after its first layers; most towers have none."""


class DroppingStage(Protocol):
    """A stage in one call of the tower; see `uniprune.engine.tower_stage`."""

    kept: list[Ints] | None
    """Per image or tile the numbers of its tokens that stay; None before the stage ran."""

    @property
    def work(self) -> list[TowerWork]:
        """The work on every image or tile."""


class Vision(Protocol):
    """The tower's work on the images of a prefill: one call, or several read as one."""

    @property
    def adapter(self) -> ModelAdapter:
        """The model's adapter."""

    @property
    def grids(self) -> list[Grid]:
        """(t, h, w) per image or tile."""

    @property
    def calls(self) -> Sequence[VisionCapture]:
        """The calls, in the order of the images."""

    @property
    def output(self) -> Any:
        """The tower's output, or the features passed to the model in its place."""

    @property
    def layouts(self) -> list[ImageLayout] | None:
        """The encoded images in prompt order, None if unknown."""

    @property
    def kept(self) -> Bools | None:
        """True at tokens that the tower did not drop, of all images; None if it dropped none."""

    @property
    def work(self) -> list[TowerWork] | None:
        """The tower's work on every image or tile; None if it dropped nothing."""

    def quantity(self, name: str, layer: TowerLayer) -> list[Tensor]:
        """Return [N, C] per image of a quantity of a captured layer."""

    def features(self) -> list[Tensor]:
        """Return [N, C] per image of the projector's input."""

    def project(self, features: Tensor) -> Tensor:
        """Return [N, D] LLM tokens of features [N, C]."""

    def cls_tokens(self, layer: int | None) -> Tensor:
        """Return [images, C] CLS states leaving a captured layer."""


@dataclass
class VisionCapture:
    """One call of the vision tower.

    Attributes:
        adapter: the model's adapter.
        grids: (t, h, w) per image or tile.
        given: arguments of the adapter's encoder that made the call.
        stage: the method's stage in the tower, if it drops something there.
        output: the tower's output.
        entered: the projector's input.
        leaving: layer -> hidden states leaving the block.
        blocks: layer -> hidden states entering the block.
        attentions: layer -> (hidden, kwargs) of its attention.
    """

    adapter: ModelAdapter
    grids: list[Grid]
    given: Mapping[str, Any] = field(default_factory=dict)
    stage: DroppingStage | None = None
    output: Any = None
    entered: Tensor | None = None
    leaving: dict[int, Tensor] = field(default_factory=dict)
    blocks: dict[int, Tensor] = field(default_factory=dict)
    attentions: dict[int, tuple[Tensor, dict[str, Any]]] = field(default_factory=dict)
    _known: dict[tuple[str, int], list[Tensor]] = field(default_factory=dict)
    _projected: dict[int, tuple[Tensor, Tensor, float]] = field(default_factory=dict)

    @property
    def calls(self) -> Sequence[VisionCapture]:
        """This call."""
        return (self,)

    @property
    def memory(self) -> int:
        """Bytes of all tensors held."""
        output = [getattr(self.output, name, None) for name in ("pooler_output", DEEPSTACK)]
        kept = [output, self.entered, self.leaving, self.blocks, self.attentions, self._known, self._projected]
        storages = [leaf.untyped_storage() for leaf in tree_leaves(kept) if isinstance(leaf, Tensor)]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    @cached_property
    def layouts(self) -> list[ImageLayout] | None:
        """The encoded images in prompt order, None if unknown."""
        return self.adapter.image_layouts(self.grids, self.given)

    @property
    def kept(self) -> Bools | None:
        """See `Vision`."""
        return (
            None
            if self.stage is None
            else np.concatenate(
                [
                    np.isin(np.arange(prod(grid)), kept)
                    for grid, kept in zip(self.grids, self.stage.kept or (), strict=True)
                ]
            )
        )

    @property
    def work(self) -> list[TowerWork] | None:
        """See `Vision`."""
        return None if self.stage is None else self.stage.work

    def forget(self) -> None:
        """Drop the computed quantities: they can be computed again."""
        self._known.clear()
        self._projected.clear()

    def quantity(self, name: str, layer: TowerLayer) -> list[Tensor]:
        """Return [N, C] per image; `name` is a method of this class without its underscore, `layer` a captured one."""
        index = self.captured(layer)
        if (name, index) not in self._known:
            self._known[name, index] = self.adapter.to_tokens(getattr(self, f"_{name}")(index), self.grids)
        return self._known[name, index]

    def captured(self, layer: TowerLayer) -> int:
        """Return the number of the block that `layer` names.

        Raises:
            PruningError: hooks did not capture it.
        """
        index = self.adapter.block_index(layer)
        if index not in self.blocks:
            raise PruningError(
                f"vision layer {index} was not captured; name it in the method's vision_layers (captured: "
                f"{sorted(self.blocks) or 'none'})"
            )
        return index

    def features(self) -> list[Tensor]:
        """Return [N, C] per image of the projector's input."""
        if self.entered is None:
            raise PruningError("the projector did not run after the vision tower, so its input is unknown")
        return self.adapter.features(self.entered, self.grids)

    def project(self, features: Tensor) -> Tensor:
        """Return [N, D] from [N, C], in the projector's dtype."""
        return self.adapter.project(features if self.entered is None else features.to(self.entered))

    def cls_tokens(self, layer: int | None) -> Tensor:
        """Return [images, C] CLS states leaving a captured layer."""
        self._require_cls("a CLS token")
        return self.leaving[self.captured(layer)][:, 0]

    def _require_cls(self, quantity: str) -> None:
        if not self.adapter.has_cls:
            raise UnsupportedError(
                f"the vision tower of {type(self.adapter).__name__} has no CLS token, so {quantity} does not exist; "
                "use a method based on received attention"
            )

    def _projections(self, layer: int) -> tuple[Tensor, Tensor, float]:
        """Return queries, keys and scale of a block, kept until another block is asked for."""
        if layer not in self._projected:
            attention = self.adapter.vision_attention(self.adapter.vision_blocks()[layer])
            self._projected.clear()
            self._projected[layer] = self.adapter.vision_qk(attention, *self.attentions[layer])
        return self._projected[layer]

    def _spans(self, layer: int) -> list[Span]:
        return self.adapter.vision_spans(*self.attentions[layer], self.grids, layer)

    def _received(self, layer: int) -> Tensor:
        query, key, scale = self._projections(layer)
        return received(query, key, scale, self._spans(layer))[..., None]

    def _from_others(self, layer: int) -> Tensor:
        query, key, scale = self._projections(layer)
        return from_others(query, key, scale, self._spans(layer), skip=int(self.adapter.has_cls))[..., None]

    def _cls(self, layer: int) -> Tensor:
        self._require_cls("CLS attention")
        query, key, scale = self._projections(layer)
        return (query[:, :, :1] @ key.transpose(-1, -2) * scale).float().softmax(-1)[:, :, 0].transpose(1, 2)

    def _joint_cls(self, layer: int) -> Tensor:
        self._require_cls("CLS attention")
        query, key, _ = self._projections(layer)
        cls, keys = (x.transpose(1, 2).flatten(2).float() for x in (query[:, :, :1], key))
        scores: Tensor = (keys @ cls.transpose(1, 2) * keys.shape[-1] ** -0.5).softmax(1)
        return scores

    def _exchanged(self, layer: int) -> Tensor:
        query, key, scale = self._projections(layer)
        return exchanged(query, key, scale, self._spans(layer), skip=int(self.adapter.has_cls))

    def _keys(self, layer: int) -> Tensor:
        return self._projections(layer)[1].transpose(1, 2).flatten(2)

    def _head_mean_keys(self, layer: int) -> Tensor:
        return self._projections(layer)[1].mean(1, dtype=torch.float32)

    def _hidden(self, layer: int) -> Tensor:
        hidden = self.blocks[layer]
        return hidden if hidden.dim() == 3 else hidden[None]
