"""What the engine must know of a model family: where its parts are and how its vision tower orders tokens.

A family is a subclass of `ModelAdapter` in `models/`, registered under the Hugging Face `config.model_type` it serves.
The decoder side is shared; a subclass describes the vision side only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniprune.errors import UnsupportedError, UserError
from uniprune.modeling.messages import RawQuestion
from uniprune.modeling.tiny import TinyModel
from uniprune.pruning.view import Grid
from uniprune.registry import MODELS

Span = tuple[int, int]
Columns = Callable[[slice], Tensor]
"""Gives those columns of a matrix."""


@dataclass(frozen=True)
class ImageLayout:
    """One encoded image as it lies in the prompt.

    Attributes:
        grids: (t, h, w) of its grids of tokens, in the order of their placeholders.
        origins: [N] for every cell of the grids, the number of its token among all that the tower's call made, counted
            grid after grid in LLM order; None if unknown.
        markers: [P] True at placeholders of the image that hold no token but, say, the end of a row; None for none.
    """

    grids: tuple[Grid, ...]
    origins: Tensor | None = None
    markers: Tensor | None = None

    @property
    def placeholders(self) -> int:
        """P, how many placeholders the image takes."""
        return sum(map(prod, self.grids)) if self.markers is None else len(self.markers)


class ModelAdapter:
    """Layout of one loaded model.

    Attributes:
        model: the Hugging Face model. base: `model.base_model`. decoder: the language model. layers: its layers.
        vision: vision tower. projector: module between tower and language model (may lie inside the tower).
        has_cls: whether the tower prepends a CLS token.
        tiled: whether one image may be encoded as several tiles that lie next to each other in the prompt.
        specimen: its tiny random-weight model, on which `check` runs methods.
    """

    tiled: ClassVar[bool] = False
    specimen: ClassVar[type[TinyModel]] = TinyModel
    has_cls: bool = False
    vision: nn.Module
    projector: nn.Module

    def __init__(self, model: Any) -> None:
        self.model = model
        self.base: Any = model.base_model
        self.decoder: Any = model.get_decoder()
        self.layers: Sequence[Any] = self.decoder.layers

    # --- to be written per family -------------------------------------------------------------------------------
    def vision_blocks(self) -> Sequence[nn.Module]:
        """Transformer blocks of the tower, in order."""
        raise NotImplementedError

    def vision_attention(self, block: Any) -> nn.Module:
        """Self-attention module of one tower block; its first input is the normalised hidden states."""
        raise NotImplementedError

    def grids(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
        """(t, h, w) in LLM tokens of every image (or tile) in one call of the vision tower."""
        raise NotImplementedError

    def vision_qk(self, attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
        """Queries and keys [B, heads, S, d] of a tower attention called with `hidden` and `kwargs`, and the scale."""
        raise NotImplementedError

    def vision_spans(self, hidden: Tensor, kwargs: dict[str, Any]) -> list[Span]:
        """Ranges [start, stop) of S that attend to each other only; one range where the tower attends to everything."""
        return [(0, hidden.shape[-2])]

    def attention_spans(self, grid: Grid, block: int) -> list[int]:
        """Lengths of the ranges of one image's tower positions that attend to each other only, in block `block`."""
        t, h, w = grid
        return [int(self.has_cls) + t * h * w * self.merge**2]

    def to_tokens(self, values: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Patch values [B, S, C] in tower order, pooled to [N, C] per grid in the order the LLM sees tokens."""
        raise NotImplementedError

    def feature_block(self) -> int:
        """The block whose attention methods look at by default: the one that makes the projector's features."""
        raise NotImplementedError

    def features(self, entering: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """[N, C] per grid of what entered the projector, in LLM order; C covers all patches of a token."""
        raise NotImplementedError

    def project(self, features: Tensor) -> Tensor:
        """[N, D] LLM tokens of features [N, C] as `features` returns them; hooks of the projector do not run."""
        raise NotImplementedError

    # --- may be written per family ------------------------------------------------------------------------------
    def prompt(self, asked: RawQuestion) -> Sequence[str | int] | None:
        """The user message as VLMEvalKit's wrapper of this family words it: texts, and positions in `asked.pictures`.

        None leaves it to the benchmark. Asked for under the prompt policy "family" only; must not decode the pictures.
        """
        return None

    # --- to be written where the language model does not get what the tower made, token for token ---------------
    def pictures(
        self, grids: Sequence[Grid] | None, projected: Callable[[], Tensor | None], features: Columns
    ) -> list[ImageLayout] | None:
        """The encoded images in prompt order; by default one per grid, whole. None if unknown.

        Args:
            grids: what `grids` said of the tower's call; None when the features were computed outside the session.
            projected: gives what left the projector; None then, too.
            features: makes [P, C] those columns of what the placeholders of all rows hold, row after row.
        """
        if grids is None:
            return None
        sizes = list(map(prod, grids))
        origins = torch.arange(sum(sizes)).split(sizes)
        return [ImageLayout((grid,), origin) for grid, origin in zip(grids, origins, strict=True)]

    @property
    def usual_tokens(self) -> int:
        """Visual tokens of one image of ordinary size: what `bench` shows the model unless told otherwise."""
        raise UnsupportedError(
            f"{type(self).__name__} cannot make random images; give it usual_tokens and random_image"
        )

    def random_image(self, tokens: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Random pixel inputs that become `tokens` visual tokens of one prompt; prompts are concatenated along dim 0.

        Raises:
            UserError: the family cannot encode that many.
        """
        raise UnsupportedError(
            f"{type(self).__name__} cannot make random images; give it usual_tokens and random_image"
        )

    def placeholders(self, tokens: int) -> int:
        """Placeholders that the prompt of `random_image(tokens, …)` needs; by default one per visual token."""
        return tokens

    def id_arguments(self, ids: Tensor) -> dict[str, Tensor]:
        """Further arguments of a forward that follow from its input ids [B, L]."""
        return {}

    # --- shared -------------------------------------------------------------------------------------------------
    merge: int = 1
    """Patches per side that form one LLM token (1: a token is a patch)."""

    def block_index(self, layer: int | None) -> int:
        """Number of a tower block from 0, given as a method names it: negative from the end, None for the default."""
        return (self.feature_block() if layer is None else layer) % len(self.vision_blocks())

    @cached_property
    def visual_token_ids(self) -> list[int]:
        """Placeholder ids of images (and videos) in `input_ids`."""
        config = self.model.config
        ids = (getattr(config, name, None) for name in ("image_token_id", "video_token_id"))
        return [i for i in ids if i is not None]

    @cached_property
    def special_token_ids(self) -> list[int]:
        """Every id the model's configs call a token id: start, end, padding, image markers and the like."""
        configs = [self.model.config, self.decoder.config, getattr(self.model, "generation_config", None)]
        ids: set[int] = set()
        for config in configs:
            for name, value in (config.to_dict() if config is not None else {}).items():
                if "token_id" in name:
                    ids.update(i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int))
        return sorted(ids)

    def final_norm(self, hidden: Tensor) -> Tensor:
        """The decoder's last norm, which precedes the output head, on hidden states of any layer and device."""
        norm = self.decoder.norm
        return norm(hidden.to(norm.weight.device)).to(hidden.device)

    def is_compiled(self) -> bool:
        """Whether the model or a part of it was wrapped by torch.compile, which ignores hooks added later."""
        return any(
            hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
            for module in self.model.modules()
        )


class PatchGridAdapter(ModelAdapter):
    """A family whose tower takes [images, 3, H, W], may prepend a CLS token and attends over one whole image."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.vision = self.base.vision_tower
        self.projector = self.base.multi_modal_projector
        self.has_cls = getattr(model.config, "vision_feature_select_strategy", "default") == "default"
        self._patch = _pair(model.config.vision_config.patch_size)

    def grids(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
        """One square or rectangular grid per image, from the pixel size."""
        pixels = args[0] if args else kwargs["pixel_values"]
        return [self._grid(pixels.shape[-2:])] * pixels.shape[0]

    def _grid(self, size: Sequence[int]) -> Grid:
        """The grid of an image of `size` pixels, height first."""
        height, width = self._patch
        return 1, size[0] // height // self.merge, size[1] // width // self.merge

    @property
    def usual_tokens(self) -> int:
        """An image or tile of the size the tower was made for."""
        return math.prod(self._grid(_pair(self.model.config.vision_config.image_size)))

    def random_image(self, tokens: int, generator: torch.Generator) -> dict[str, Tensor]:
        """[images or tiles, 3, H, W] of the size the tower was made for."""
        count, rest = divmod(tokens, self.usual_tokens)
        if rest or not count:
            raise UserError(
                f"{type(self).__name__} encodes {self.usual_tokens} visual tokens per image or tile, so {tokens} are "
                f"impossible; ask for a multiple of {self.usual_tokens}"
            )
        size = _pair(self.model.config.vision_config.image_size)
        return {"pixel_values": torch.randn(count, 3, *size, generator=generator)}

    def vision_qk(self, attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
        """Separate query and key projections, with an optional norm over the full width."""
        query, key = attention.q_proj(hidden), attention.k_proj(hidden)
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        shape = (*hidden.shape[:-1], attention.num_heads, attention.head_dim)
        return query.view(shape).transpose(1, 2), key.view(shape).transpose(1, 2), attention.scale

    def to_tokens(self, values: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Drop the CLS token, then average blocks of `merge` x `merge` patches."""
        values = values[:, int(self.has_cls) :].float()
        if self.merge > 1:
            (_, height, width), channels = grids[0], values.shape[-1]
            image = values.transpose(1, 2).reshape(-1, channels, height * self.merge, width * self.merge)
            values = F.avg_pool2d(image, self.merge).flatten(2).transpose(1, 2)
        return list(values)

    def feature_block(self) -> int:
        """From `vision_feature_layer`, which counts the embeddings as layer 0."""
        layer = self.model.config.vision_feature_layer
        last = layer[-1] if isinstance(layer, (list, tuple)) else layer
        return last if last < 0 else last - 1

    def features(self, entering: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """One [N, C] per image; patches of a token are already side by side in C."""
        return list(entering.reshape(len(grids), -1, entering.shape[-1]))

    def project(self, features: Tensor) -> Tensor:
        """The projector treats tokens one by one."""
        return self.projector.forward(features[None])[0]


def _pair(size: Any) -> tuple[int, int]:
    """Height and width, of a configuration that may give one number for both."""
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return height, width


def find_adapter(model: Any) -> ModelAdapter:
    """The registered family of a loaded model; PEFT wrappers are looked through.

    Raises:
        UserError: it is no Hugging Face model, or nothing is registered under its `config.model_type`.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = getattr(getattr(inner, "config", None), "model_type", None)
    if kind is None:
        raise UserError(
            f"{type(model).__name__} has no config.model_type, so its family cannot be found; pass a loaded Hugging "
            "Face vision-language model"
        )
    return MODELS.get(kind)(inner)


def rotate_half(x: Tensor) -> Tensor:
    """(a, b) -> (-b, a) on the halves of the last dimension, as rotary embeddings need it."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


def window_order(grids: Sequence[Grid], side: int) -> Tensor:
    """[tokens] raster index of every token when each frame is read window by window of `side` x `side` tokens."""

    def windows() -> Iterator[Tensor]:
        start = 0
        for t, h, w in grids:
            for frame in torch.arange(start, start + t * h * w).view(t, h, w):
                for top in range(0, h, side):
                    for left in range(0, w, side):
                        yield frame[top : top + side, left : left + side].flatten()
            start += t * h * w

    return torch.cat(list(windows()))
