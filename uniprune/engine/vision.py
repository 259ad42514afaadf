"""Vision-tower quantities on demand, from what one call of the tower showed to hooks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.attention import received
from uniprune.errors import PruningError, UnsupportedError
from uniprune.family import Family
from uniprune.view import Grid


@dataclass
class VisionCall:
    """One call of the vision tower.

    Attributes:
        family: the model's family. grids: (t, h, w) per image or tile. output: what the tower returned.
        blocks: layer -> hidden states entering the block. attentions: layer -> (hidden, kwargs) of its attention.
    """

    family: Family
    grids: list[Grid]
    output: Any = None
    blocks: dict[int, Tensor] = field(default_factory=dict)
    attentions: dict[int, tuple[Tensor, dict[str, Any]]] = field(default_factory=dict)
    _known: dict[tuple[str, int], list[Tensor]] = field(default_factory=dict)

    def quantity(self, name: str, layer: int) -> list[Tensor]:
        """[N, C] per image: "received" (C = 1), "cls" (C = heads), "keys" or "hidden" of a captured layer."""
        layer %= len(self.family.vision_blocks())
        if layer not in self.blocks:
            raise PruningError(
                f"vision layer {layer} was not captured; name it in the method's vision_layers (captured: "
                f"{sorted(self.blocks) or 'none'})"
            )
        if (name, layer) not in self._known:
            self._known[name, layer] = self.family.to_tokens(getattr(self, f"_{name}")(layer), self.grids)
        return self._known[name, layer]

    def _projections(self, layer: int) -> tuple[Tensor, Tensor, float]:
        attention = self.family.vision_attention(self.family.vision_blocks()[layer])
        return self.family.vision_qk(attention, *self.attentions[layer])

    def _received(self, layer: int) -> Tensor:
        query, key, scale = self._projections(layer)
        return received(query, key, scale, self.family.vision_spans(*self.attentions[layer]))[..., None]

    def _cls(self, layer: int) -> Tensor:
        if not self.family.has_cls:
            raise UnsupportedError(
                f"the vision tower of {type(self.family).__name__} has no CLS token, so CLS attention does not exist; "
                "use a method based on received attention"
            )
        query, key, scale = self._projections(layer)
        return (query[:, :, :1] @ key.transpose(-1, -2) * scale).float().softmax(-1)[:, :, 0].transpose(1, 2)

    def _keys(self, layer: int) -> Tensor:
        return self._projections(layer)[1].transpose(1, 2).flatten(2)

    def _hidden(self, layer: int) -> Tensor:
        hidden = self.blocks[layer]
        return hidden if hidden.dim() == 3 else hidden[None]


@dataclass(frozen=True)
class UnitVision:
    """`view.vision`: the quantities of one call at the tokens one view holds.

    Attributes:
        call: the tower call, None when the features came from outside. images: positions of the view's images in it.
        cells: [N] cells of the surviving tokens in the concatenated grids.
    """

    call: VisionCall | None
    images: tuple[int, ...]
    cells: Tensor

    def received(self, layer: int) -> Tensor:
        """[N] attention each token receives, mean over heads and queries."""
        return self._tokens("received", layer)[:, 0]

    def cls(self, layer: int) -> Tensor:
        """[heads, N] attention of the CLS query; raises UnsupportedError where the tower has none."""
        return self._tokens("cls", layer).T

    def keys(self, layer: int) -> Tensor:
        """[N, C] key vectors, rotated where the tower rotates them."""
        return self._tokens("keys", layer)

    def hidden(self, layer: int) -> Tensor:
        """[N, C] hidden states entering the layer."""
        return self._tokens("hidden", layer)

    def _tokens(self, name: str, layer: int) -> Tensor:
        if self.call is None:
            raise UnsupportedError(
                "the image features were computed outside this session, so nothing is known about the vision tower; "
                "pass pixel values, or use a method without vision scores"
            )
        every = torch.cat([self.call.quantity(name, layer)[i] for i in self.images])
        return every[self.cells.to(every.device)].to(self.cells.device)
