"""SmolVLM, SmolVLM2 and Idefics3: square tiles of an image, each a run of placeholders between marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from uniprune.errors import UnsupportedError, UserError
from uniprune.modeling.adapter import Tried
from uniprune.modeling.image_grouping import EncodedPrompt, Grouping
from uniprune.modeling.messages import RawQuestion
from uniprune.modeling.patch_grid import PatchGridAdapter
from uniprune.modeling.random_images import Size
from uniprune.modeling.shown_areas import WHOLE, Area, check_described, cut
from uniprune.modeling.tiny import IMAGE, PAD, VISION, TinyModel
from uniprune.pruning.view import Grid
from uniprune.registry import register_model

from ._idefics_prompts import idefics3, smolvlm, smolvlm2

PATCH, SCALE = 14, 2


class TinySmolVLM(TinyModel):
    """Four SigLIP layers, four patches to a token; of a prompt's images every second one is a global tile only."""

    kind: ClassVar[str] = "SmolVLMConfig"

    def config(self, text: dict[str, Any]) -> Any:
        """SmolVLMConfig, or that of a subclass's `kind`."""
        import transformers

        vision = {"num_hidden_layers": 4, "num_attention_heads": 4, "patch_size": PATCH}
        return getattr(transformers, self.kind)(
            vision_config={**VISION, **vision, "image_size": PATCH * SCALE * self.size[0]},
            text_config=transformers.LlamaConfig(**text),
            image_token_id=IMAGE,
            scale_factor=SCALE,
            pad_token_id=PAD,
            tie_word_embeddings=False,
        )

    def tiles(self, number: int, tiles: int) -> int:
        """Three, or the global one."""
        return max(tiles, 1 if number % 2 or self.size == (1, 1) else 3)

    def visual_inputs(self, rows: Sequence[Sequence[dict[str, Tensor]]]) -> dict[str, Tensor]:
        """[rows, most tiles of any, 3, side, side]: tiles of zeros, which the model drops, fill shorter rows."""
        joined = [torch.cat([image["pixel_values"][0] for image in row]) if row else None for row in rows]
        some = [tiles for tiles in joined if tiles is not None]
        if not some:
            return {}
        pixels = some[0].new_zeros(len(rows), max(map(len, some)), *some[0].shape[1:])
        for row, tiles in zip(pixels, joined, strict=True):
            if tiles is not None:
                row[: len(tiles)] = tiles
        return {"pixel_values": pixels}


class TinyIdefics3(TinySmolVLM):
    """The same architecture under its first name."""

    kind = "Idefics3Config"


@register_model("smolvlm", tiny=TinySmolVLM)
class SmolVLM(PatchGridAdapter):
    """SmolVLM2 (arXiv 2504.05299): SigLIP tiles and a last, global one; pixel shuffle and one product; 64 or 81 tokens.

    Videos are frames, each an image of one tile.
    """

    overview: ClassVar[int | None] = -1
    tried: ClassVar[Tried] = {"text model": ("llama",), "tower": ("smolvlm_vision",)}

    parts = ("vision_model", "connector")

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.has_cls = False
        self.merge = model.config.scale_factor

    def image_grouping(self) -> Grouping:
        """By the tags before the tiles."""
        return tiles_to_global

    def prompt(self, asked: RawQuestion) -> Sequence[str | int] | None:
        """The benchmark's message, rewritten by dataset."""
        return smolvlm2(asked)

    def image_areas(self, processor: Any, size: Size, images: int) -> Sequence[Area]:
        """Tiles of the image stretched to whole tiles, and the global one."""
        own = processor.image_processor
        check_described(own, "SmolVLMImageProcessor", "Idefics3ImageProcessor")
        rows, columns = tiles_of(own, size)
        return [WHOLE] if rows == columns == 1 else [*cut(WHOLE, rows, columns), WHOLE]

    def vision_blocks(self) -> Sequence[nn.Module]:
        """Blocks of the SigLIP encoder."""
        blocks: Sequence[nn.Module] = self.vision.encoder.layers
        return blocks

    def vision_attention(self, block: Any) -> nn.Module:
        """The block's `self_attn`."""
        attention: nn.Module = block.self_attn
        return attention

    def vision_qk(self, attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
        """As for all such towers.

        Raises:
            UnsupportedError: tiles are padded within, as frames of a video that is not square: patches of padding
                would share in the scores.
        """
        mask = kwargs.get("attention_mask")
        if mask is not None and not bool((mask if mask.dtype == torch.bool else mask == 0).all()):
            raise UnsupportedError(
                "a tile is padded within (a video frame that is not square), so scores of the vision tower would count "
                "padding; use a method without them, or pad the frames before the processor does"
            )
        return super().vision_qk(attention, hidden, kwargs)

    def feature_block(self) -> int:
        """The last block."""
        return len(self.vision_blocks()) - 1

    def features(self, entering: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """The patches of a token side by side, as the connector joins them."""
        return list(self.projector.pixel_shuffle(entering, self.merge))

    def project(self, features: Tensor) -> Tensor:
        """The connector's product takes tokens one by one."""
        tokens: Tensor = self.projector.modality_projection.forward(features)
        return tokens

    def image_of(self, tokens: int) -> tuple[Size, int]:
        """A global tile, or two and more tiles before it."""
        size, tiles = super().image_of(tokens)
        if tiles == 2:
            raise UserError(
                f"an image has one tile or three and more, {self.usual_tokens} visual tokens each, so {tokens} are "
                f"impossible; use {self.usual_tokens} or {3 * self.usual_tokens}"
            )
        return size, tiles

    def random_image(self, size: Size, tiles: int, generator: torch.Generator) -> dict[str, Tensor]:
        """[1, tiles, 3, side, side]."""
        return {"pixel_values": torch.randn(1, tiles, 3, *self._pixels, generator=generator)}

    def image_ids(self, size: Size, tiles: int) -> list[int]:
        """A mark and a tag before every tile, and a mark at the end; any ids serve, and configurations name none."""
        image = self.visual_token_ids[0]
        mark, part, whole, run = image - 1, image - 2, image - 3, [image] * (size[0] * size[1])
        return [*[mark, part, *run] * (tiles - 1), mark, whole, *run, mark]


@register_model("idefics3", tiny=TinyIdefics3)
class Idefics3(SmolVLM):
    """Idefics3 (arXiv 2408.12637) and the first SmolVLM: 169, 81 or 64 tokens a tile; the rest is SmolVLM2's."""

    tried: ClassVar[Tried] = {"text model": ("llama",), "tower": ("idefics3_vision",)}

    def prompt(self, asked: RawQuestion) -> Sequence[str | int] | None:
        """As the wrapper of Idefics3, which merges 2 x 2 patches; SmolVLM's checkpoints of this type merge more."""
        return idefics3(asked) if self.merge == 2 else smolvlm(asked)


def tiles_of(image_processor: Any, size: Size) -> Size:
    """Return the rows and columns of tiles that an image of `size` pixels is cut into, by the processor's own steps."""
    from transformers.models.idefics3.image_processing_idefics3 import get_resize_output_image_size

    own, (height, width) = image_processor, size
    if not own.do_image_splitting:
        return 1, 1
    if own.do_resize and (longest := own.size.get("longest_edge")):
        height, width = get_resize_output_image_size(torch.empty((3, *size), device="meta"), longest)
    side, ratio = own.max_image_size["longest_edge"], width / height
    if width >= height:
        columns = math.ceil(width / side)
        return math.ceil(int(columns * side / ratio) / side), columns
    rows = math.ceil(height / side)
    return rows, math.ceil(int(rows * side * ratio) / side)


def tiles_to_global(prompt: EncodedPrompt) -> list[int]:
    """The tiles of an image end with its global one.

    The processor writes a mark and a tag before every tile, and the mark at the end of an image. Tags of all global
    tiles are the same, in one token or several, and differ from all others; every prompt's last tile is global.

    Raises:
        UnsupportedError: there are no ids, or tiles without mark and tag.
    """
    if not prompt.sizes:
        return []
    ends = [start + size for start, size in zip(prompt.starts, prompt.sizes, strict=True)]
    stops = (1 + prompt.places[torch.tensor(ends) - 1]).tolist()
    tags = []
    if prompt.ids is not None and prompt.starts == prompt.runs and stops[-1] < len(prompt.ids):
        starts, mark = prompt.places[torch.tensor(prompt.starts)].tolist(), int(prompt.ids[stops[-1]])
        for start, stop in zip([0, *stops], starts, strict=False):
            before = prompt.ids[start:stop].tolist()
            tags.append(before[len(before) - before[::-1].index(mark) :] if mark in before else [])
    if not tags or not all(tags):
        raise UnsupportedError(
            f"row {prompt.row} of the batch has tiles without the marks and tags that the family's processor writes, "
            "so it is unknown which of them make up an image; pass the processor's input_ids"
        )
    globals_ = [number for number, tag in enumerate(tags) if tag == tags[-1]]
    return [after - before for before, after in pairwise([-1, *globals_])]
