"""Quantities of vLLM's vision towers, computed as UniPrune computes those of transformers' towers.

The adapters are UniPrune's own; only what vLLM builds in another way (fused projections, tower built up to the block
that makes the features, halves of rotary tables) is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from uniprune.engine.hooks import Hooks
from uniprune.engine.tower_hooks import TowerHooks
from uniprune.engine.tower_quantities import TowerQuantities
from uniprune.engine.vision import Vision
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.models.internvl import InternVL
from uniprune.models.llava import Llava
from uniprune.models.qwen2_5_vl import Qwen2_5_VL
from uniprune.pruning.base import Pruner
from uniprune.pruning.view import Grid, TowerLayer


def _as_transformers(config: Any, **parts: Any) -> Any:
    """Return the parts of a vLLM model under the names of transformers; its decoder, with paged keys, has none."""
    return SimpleNamespace(
        config=config, base_model=SimpleNamespace(**parts), get_decoder=lambda: SimpleNamespace(layers=())
    )


class ClipTower(Llava):  # type: ignore[misc]  # typed where it is defined
    """vLLM's CLIP tower: one projection to queries, keys and values; no blocks after the one that makes features."""

    def __init__(self, model: Any) -> None:
        tower, projector = model.vision_tower.vision_model, model.multi_modal_projector
        super().__init__(_as_transformers(model.config, vision_tower=tower, multi_modal_projector=projector))

    @property
    def tower_depth(self) -> int:
        """Blocks of the checkpoint."""
        return int(self.model.config.vision_config.num_hidden_layers)

    def block_index(self, layer: TowerLayer) -> int:
        """As in the base class.

        Raises:
            UnsupportedError: vLLM does not build this block.
        """
        index: int = super().block_index(layer)
        built = len(self.vision_blocks())
        if index >= built:
            raise UnsupportedError(
                f"vision_layer={layer} is block {index} of the vision tower, but vLLM builds blocks 0..{built - 1} only"
            )
        return index

    def vision_qk(self, attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
        """Fused projection."""
        query, key, _ = attention.qkv_proj(hidden)[0].chunk(3, dim=-1)
        shape = (*hidden.shape[:-1], attention.num_heads, attention.head_dim)
        return query.reshape(shape).transpose(1, 2), key.reshape(shape).transpose(1, 2), attention.scale


class InternTower(InternVL):  # type: ignore[misc]
    """vLLM's InternViT, whose projections are those of transformers."""

    def __init__(self, model: Any) -> None:
        tower, projector = model.vision_tower, model.multi_modal_projector
        super().__init__(_as_transformers(model.config, vision_tower=tower, multi_modal_projector=projector))

    def vision_qk(self, attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
        """Separate projections; the norm is there without queries and keys being normed in some checkpoints."""
        query, key = attention.q_proj(hidden), attention.k_proj(hidden)
        if attention.qk_normalization:
            query, key = attention.q_norm(query), attention.k_norm(key)
        shape = (*hidden.shape[:-1], attention.num_heads, attention.head_dim)
        return query.view(shape).transpose(1, 2), key.view(shape).transpose(1, 2), attention.scale


class QwenTower(Qwen2_5_VL):  # type: ignore[misc]
    """vLLM's tower of Qwen2.5-VL: states [S, 1, C], and one half of each rotary table, whose halves are alike.

    vLLM runs the forwards of blocks and merger, which it may compile, past their hooks. Each begins with a norm, which
    is watched in its place: it receives the same states.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(_as_transformers(model.config, visual=model.visual))
        self.projector = self.vision.merger.ln_q

    def vision_blocks(self) -> Sequence[nn.Module]:
        """First norms of the blocks."""
        return [block.norm1 for block in self.vision.blocks]

    def vision_attention(self, block: Any) -> nn.Module:
        """The attention after a block's first norm."""
        attention: nn.Module = next(own.attn for own in self.vision.blocks if own.norm1 is block)
        return attention

    def project(self, features: Tensor) -> Tensor:
        """The merger, of the patches of a token."""
        tokens: Tensor = self.vision.merger.forward(features.reshape(-1, features.shape[-1] // self.merge**2))
        return tokens

    def grids(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
        """From a list of grids of patches."""
        found: list[Grid] = super().grids((), {"grid_thw": torch.tensor(kwargs["grid_thw"])})
        return found

    def feature_block(self) -> int:
        """The last block that attends to the whole image."""
        return int(max(self.vision.fullatt_block_indexes))

    def vision_qk(self, attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
        """As of transformers' tower, for which the fused projection and the rotary tables have the same content."""
        size = attention.hidden_size_per_attention_head
        tables = (kwargs[f"rotary_pos_emb_{name}"].repeat(1, 2) for name in ("cos", "sin"))
        as_there = SimpleNamespace(
            qkv=lambda states: attention.qkv(states)[0],
            num_heads=attention.num_attention_heads_per_partition,
            scaling=size**-0.5,
        )
        found: tuple[Tensor, Tensor, float] = super().vision_qk(
            as_there, hidden[:, 0], {"position_embeddings": tuple(tables)}
        )
        return found


@dataclass(frozen=True)
class ImageQuantities(TowerQuantities):
    """Quantities of one image in a call of the tower.

    Attributes:
        work: the call.
        tiles: numbers of the image's tiles in it.
    """

    work: Vision
    tiles: Sequence[int]

    @property
    def _call(self) -> Vision:
        return self.work

    @property
    def _images(self) -> list[int]:
        return list(self.tiles)

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self.work.adapter.projector.parameters()).device
        return device

    def _of_view(self, values: list[Tensor]) -> Tensor:
        return torch.cat([values[i] for i in self.tiles])

    def project(self, features: Tensor) -> Tensor:
        """Return [k, D] LLM tokens of features [k, C]."""
        return self.work.project(features)


class Tower:
    """The vision tower of a model, watched where a method reads it; by itself one that is not.

    Args:
        hooks: what watches it.
        installed: the hooks themselves.
    """

    def __init__(self, hooks: TowerHooks | None = None, installed: Hooks | None = None) -> None:
        self._hooks, self._installed = hooks, installed

    @classmethod
    def of(cls, adapter: Callable[[Any], ModelAdapter], model: Any, pruner: Pruner) -> Tower:
        """Watch what a method reads.

        Args:
            adapter: makes the adapter of the model.
            model: vLLM's.
            pruner: the method.

        Raises:
            UnsupportedError: it reads a block that vLLM does not build.
        """
        if not pruner.vision_layers:
            return cls()
        own = adapter(model)
        watching, installed = TowerHooks(own, nullcontext), Hooks((), _never)
        installed.before(own.vision, lambda module, args, kwargs: _begin(watching, args, kwargs))
        watching.attach(installed, {own.block_index(layer) for layer in pruner.vision_layers}, None)
        return cls(watching, installed)

    def image(self, first: int, tiles: int) -> ImageQuantities | None:
        """Return the quantities of an image in the latest call, by its first tile and their number; None if unread."""
        if self._hooks is None or self._hooks.capture is None:
            return None
        return ImageQuantities(self._hooks.capture, range(first, first + tiles))

    def forget(self) -> None:
        """Drop the latest call."""
        if self._hooks is not None:
            self._hooks.capture = None

    def release(self) -> None:
        """Watch no longer."""
        if self._installed is not None:
            self._installed.remove()


def _begin(watching: TowerHooks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    watching.begin(args, kwargs, {})


def _never(*args: Any) -> None:
    """Stand for a hook on decoder layers, of which none is installed."""
