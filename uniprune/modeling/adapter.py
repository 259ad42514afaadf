"""Layouts of models: where the parts are, how the vision tower orders tokens, which inputs become an image.

A family is a subclass of `ModelAdapter` in `models/`, registered under the Hugging Face `config.model_type` it serves.
The decoder side is shared; a subclass describes the vision side only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from uniprune.modeling.context import layer_kinds, reusing_layers, rotary_kind, rotary_positions
from uniprune.modeling.image_grouping import Grouping, one_run
from uniprune.modeling.image_layout import ImageLayout
from uniprune.modeling.image_sizes import ImageSizes
from uniprune.modeling.messages import RawQuestion
from uniprune.modeling.origins import Origins
from uniprune.modeling.random_images import RandomImages
from uniprune.modeling.shown_areas import ShownAreas
from uniprune.modeling.text_tower import TextTowers
from uniprune.modeling.tower_patches import TowerPatches
from uniprune.pruning.view import Grid, TowerLayer

Span = tuple[int, int]
TextAfter = Literal["width", "kept", "unpruned"]
"""A place where text goes on: the grid's width after an image's first id, after the ids left of it, or after all."""
Tried = Mapping[str, Sequence[str]]
"""Part of a model -> kinds of it."""
USUAL: Tried = {"rotary positions": ("default",), "feature layers": ("one",), "feature strategy": ("default",)}
"""Kinds of the parts that most models of every family have."""


def consecutive(lengths: Iterable[int]) -> list[Span]:
    """Return the ranges [start, stop) of these lengths, one after the other from 0."""
    return list(pairwise(accumulate(lengths, initial=0)))


class ModelAdapter(RandomImages, ImageSizes, TowerPatches, TextTowers, ShownAreas):
    """Layout of one loaded model.

    Attributes:
        model: the Hugging Face model.
        base: `model.base_model`.
        decoder: the language model.
        layers: the decoder's layers.
        vision: vision tower.
        projector: module between tower and language model (may be inside the tower).
        has_cls: whether the tower prepends a CLS token.
        packed: whether the tower takes all images as one sequence and passes the bounds of what attends to each other
            to attention kernels that transformers calls flash.
        system: system message of the family's wrapper in VLMEvalKit, for the prompt policy "family" only.
        block_kinds: kinds of decoder layers (`layer_types` of the config) in which the tokens of a block see each other
            both ways; empty where attention is causal.
        encoders: methods of `base`, such as "get_image_features", whose arguments `grids` and `image_layouts` need.
        videos: whether prompts with videos, as the processor makes them, are described, too.
        mixes: whether a prompt may have both, each with its own placeholder; the tower is called for images first.
        merge: patches per side that form one LLM token (1: a token is a patch).
        overview: place, 0 or -1, among the tiles of an image of the one that shows the whole image, where others are
            parts of it; None where images are not cut.
        bare_weights: matrix outside of linear layers -> whether tokens are multiplied with it, or rows of it taken.
        tried: for every part of `variant`, its kinds that the engine's tests run on; by default the usual one.
    """

    tried: ClassVar[Tried] = {}
    videos: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    overview: ClassVar[int | None] = None
    encoders: ClassVar[tuple[str, ...]] = ()
    system: ClassVar[str | None] = None
    block_kinds: frozenset[str] = frozenset()
    has_cls: bool = False
    packed: bool = False
    merge: int = 1
    bare_weights: ClassVar[Mapping[str, bool]] = {}
    vision: Any
    projector: Any

    def __init__(self, model: Any) -> None:
        self.model = model
        self.base: Any = model.base_model
        self.decoder: Any = model.get_decoder()
        self.layers: Sequence[Any] = self.decoder.layers

    @classmethod
    def of(cls, model: Any) -> ModelAdapter:
        """Return the adapter of a model; by default this class, where one `model_type` has one kind of tower."""
        return cls(model)

    # --- vision tower: every family writes these ----------------------------------------------------------------
    def vision_blocks(self) -> Sequence[nn.Module]:
        """Return the transformer blocks of the tower, in order."""
        raise NotImplementedError

    def vision_attention(self, block: Any) -> nn.Module:
        """Return the self-attention module of a tower block; its first input is the normalised hidden states."""
        raise NotImplementedError

    def grids(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
        """Return (t, h, w) in LLM tokens of every image (or tile) in one call of the vision tower.

        `kwargs` are the call's, and those of the one of `encoders` that makes it.
        """
        raise NotImplementedError

    def vision_qk(self, attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
        """Compute queries and keys [B, heads, S, d], and their scale, of a tower attention called with `hidden`."""
        raise NotImplementedError

    def vision_spans(self, hidden: Tensor, kwargs: dict[str, Any], grids: Sequence[Grid], block: int) -> list[Span]:
        """Return the ranges [start, stop) of S that attend to each other only; by default one over everything.

        Args:
            hidden: first input of the attention of `block`.
            kwargs: arguments of that call.
            grids: those of the tower's call.
            block: number of the block.
        """
        return [(0, hidden.shape[-2])]

    def attention_spans(self, grid: Grid, block: int) -> list[int]:
        """Return the lengths of such ranges of tower positions in block `block`, for one image of `grid`."""
        return [int(self.has_cls) + self.patches(grid)]

    def patches(self, grid: Grid) -> int:
        """Return the number of patches of one image of `grid`."""
        return math.prod(grid) * self.merge**2

    def to_tokens(self, values: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Pool patch values [B, S, C] in tower order to [N, C] per grid, in the order the LLM gets tokens."""
        raise NotImplementedError

    def feature_block(self) -> int:
        """Return the block whose attention methods use by default: the one that makes the projector's features."""
        raise NotImplementedError

    def whole_image_blocks(self) -> Sequence[int]:
        """Return the blocks that attend to whole tiles or frames, ascending: by default all."""
        return range(len(self.vision_blocks()))

    def features(self, entering: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Return [N, C] per grid of what entered the projector, in LLM order; C covers all patches of a token."""
        raise NotImplementedError

    def project(self, features: Tensor) -> Tensor:
        """Project features [N, C] as `features` returns them to [N, D] LLM tokens, without the projector's hooks."""
        raise NotImplementedError

    # --- decoder: where its layers differ ------------------------------------------------------------------------
    @cached_property
    def attends(self) -> tuple[bool, ...]:
        """True for decoder layers that have attention with queries and keys; those of linear attention have none."""
        return tuple(hasattr(layer, "self_attn") for layer in self.layers)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kind of every decoder layer, read from the configuration once; see `uniprune.modeling.context`."""
        return layer_kinds(self.decoder.config)

    @cached_property
    def window(self) -> int | None:
        """Positions that decoder layers with a window see; None without one."""
        return getattr(self.decoder.config, "sliding_window", None)

    @cached_property
    def reusing(self) -> range:
        """Decoder layers that reuse the keys of earlier ones, the last of all; in most decoders none."""
        return reusing_layers(self.decoder.config)

    def blocks(self, visual: Tensor) -> Tensor:
        """Return [B, L] the number of the block a position belongs to, -1 for none; see `block_kinds`.

        By default every contiguous run of placeholders is one.

        Args:
            visual: [B, L] True at visual placeholders of the un-pruned prompts.
        """
        first = visual & ~torch.nn.functional.pad(visual, (1, 0))[:, :-1]
        return (first.long().cumsum(1) - 1).where(visual, -1)

    # --- prompts: optional --------------------------------------------------------------------------------------
    def prompt(self, asked: RawQuestion) -> Sequence[str | int] | None:
        """Word the user message as VLMEvalKit's wrapper of the family: texts, and positions in `asked.images`.

        None leaves it to the benchmark. Called under the prompt policy "family" only; must not decode the images.
        """
        return None

    # --- image layout: where the language model does not get what the tower made, token for token ---------------
    def image_layouts(self, grids: Sequence[Grid] | None, given: Mapping[str, Any]) -> list[ImageLayout] | None:
        """Return the encoded images in prompt order; by default one per grid, whole. None if unknown.

        Args:
            grids: result of `grids` for the tower's call; None when the features were computed outside the session.
            given: arguments of the one of `encoders` that made the call; instead of pixels their shape, by its name.
        """
        if grids is None:
            return None
        sizes = list(map(math.prod, grids))
        numbers = torch.arange(sum(sizes)).split(sizes)
        return [ImageLayout((grid,), Origins.single(number)) for grid, number in zip(grids, numbers, strict=True)]

    def image_grouping(self) -> Grouping:
        """Return the rule by which encoded grids form the images of a prompt; by default each, in one run, is one.

        It gets the ids and placeholders of a prompt, and must hold nothing of the model.
        """
        return one_run

    def text_after(self) -> Mapping[int, TextAfter]:
        """Return placeholder id -> where vLLM lets text after such an image continue; empty where it prunes none."""
        return {}

    # --- variants: other models of the same family ----------------------------------------------------------------
    def variant(self) -> dict[str, str]:
        """Return the kinds of the parts that differ among models of one `model_type` and bring code of their own."""
        text, tower = self.decoder.config, getattr(self.model.config, "vision_config", None)
        return {
            "text model": str(text.model_type),
            "tower": str(getattr(tower, "model_type", "unknown")),
            "rotary positions": ", ".join(sorted({rotary_kind(kind) for kind in rotary_positions(text)})),
        }

    def untried(self) -> str | None:
        """Return the remark about a model with parts that the tests of its family do not run on; None without any."""
        tried = {**USUAL, **self.tried}
        parts = [
            f"{part} {kind} (tried: {', '.join(tried.get(part, ())) or 'none'})"
            for part, kind in self.variant().items()
            if kind not in tried.get(part, ())
        ]
        if not parts:
            return None
        return (
            f"never tried: {', '.join(parts)} in family {self.model.config.model_type}; no test shows that the scores "
            "and costs of such a model are right"
        )

    # --- shared -------------------------------------------------------------------------------------------------
    @property
    def tower_depth(self) -> int:
        """Blocks of the tower that its checkpoint has, from the last of which negative numbers count."""
        return len(self.vision_blocks())

    def block_index(self, layer: TowerLayer) -> int:
        """Return the number of a tower block from 0; see `TowerLayer`."""
        depth = self.tower_depth
        if isinstance(layer, float):
            first = max(round(layer * depth) - 1, 0)
            whole = self.whole_image_blocks()
            return next((block for block in whole if block >= first), whole[-1])
        return (self.feature_block() if layer is None else layer) % depth

    @cached_property
    def visual_token_ids(self) -> list[int]:
        """Placeholder ids of images (and videos) in `input_ids`."""
        ids = (getattr(self.model.config, name, None) for name in ("image_token_id", "video_token_id"))
        return [i for i in ids if i is not None]

    @cached_property
    def special_token_ids(self) -> list[int]:
        """Every id the model's configs call a token id: start, end, padding, image markers and the like."""
        configs = [self.model.config, self.decoder.config, getattr(self.model, "generation_config", None)]
        ids: set[int] = set()
        for config in configs:
            for name, value in (config.to_dict() if config is not None else {}).items():
                if "token_id" in name or "token_index" in name:
                    ids.update(i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int))
        return sorted(ids)

    def final_norm(self, hidden: Tensor) -> Tensor:
        """Apply the decoder's last norm, which precedes the output head, to states of any layer and device."""
        norm = self.decoder.norm
        normed: Tensor = norm(hidden.to(norm.weight.device)).to(hidden.device)
        return normed
