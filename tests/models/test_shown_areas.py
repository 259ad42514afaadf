"""Areas of pictures that visual tokens show: what is painted there changes that token, by processor and tower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from tests.helpers.image_processors import photo
from tests.helpers.pruners import Plan
from tests.helpers.tiny import build, fresh_model, small
from uniprune.engine import prune
from uniprune.engine.token_groups import TokenGroup
from uniprune.errors import UnsupportedError
from uniprune.evaluation.selections import areas_of, selections
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.families import find_adapter
from uniprune.modeling.messages import Part
from uniprune.results.kept_tokens import Cell, Selections

SIDE = 56
"""Pixels of a side of a tile: 4 x 4 patches of 14."""
SQUARE, MERGED = {"height": SIDE, "width": SIDE}, {"height": 2 * SIDE, "width": 2 * SIDE}
CROP = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE}


def pinpoints(family: str) -> dict[str, Any]:
    return {"image_grid_pinpoints": small(family).pinpoints}  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Case:
    """A family behind one image processor, with pictures of `sizes` (width, height)."""

    family: str
    kind: str
    settings: Callable[[], dict[str, Any]] = dict
    sizes: tuple[tuple[int, int], ...] = ((333, 180), (170, 411), (300, 300))
    call: dict[str, Any] = field(default_factory=dict)
    images: int = 1


TILES = {"max_image_size": {"longest_edge": 2 * SIDE}, "size": {"longest_edge": 4 * SIDE}}
LIMITS = {"shortest_edge": (8 * 14) ** 2, "longest_edge": (16 * 14) ** 2}
CASES = {
    "llava crop": Case("llava", "CLIPImageProcessorPil", lambda: CROP),
    "llava crop of a small square": Case(
        "llava", "CLIPImageProcessorPil", lambda: {"size": {"shortest_edge": SIDE - 5}, "crop_size": SQUARE}
    ),
    "llava pad": Case("llava", "LlavaImageProcessorPil", lambda: {**CROP, "do_pad": True}),
    "llava siglip": Case("llava-siglip-qwen2", "SiglipImageProcessorPil", lambda: {"size": SQUARE}),
    "internvl tiles": Case(
        "internvl",
        "GotOcr2ImageProcessorPil",
        lambda: {"size": MERGED, "max_patches": 6},
        call={"crop_to_patches": True},
    ),
    "llava_next": Case("llava_next", "LlavaNextImageProcessorPil", lambda: {**CROP, **pinpoints("llava_next")}),
    "llava_onevision": Case(
        "llava_onevision", "LlavaOnevisionImageProcessorPil", lambda: {"size": SQUARE, **pinpoints("llava_onevision")}
    ),
    "llava_onevision, one of two": Case(
        "llava_onevision",
        "LlavaOnevisionImageProcessorPil",
        lambda: {"size": SQUARE, **pinpoints("llava_onevision")},
        images=2,
    ),
    "qwen2_5_vl": Case("qwen2_5_vl", "Qwen2VLImageProcessorPil", lambda: {"size": LIMITS}),
    "qwen2_vl": Case("qwen2_vl", "Qwen2VLImageProcessorPil", lambda: {"size": LIMITS}),
    "qwen3_vl": Case("qwen3_vl", "Qwen2VLImageProcessorPil", lambda: {"size": LIMITS, "patch_size": 16}),
    "glm4v": Case("glm4v", "Glm4vImageProcessorPil", lambda: {"size": LIMITS}),
    "smolvlm": Case("smolvlm", "SmolVLMImageProcessorPil", lambda: TILES),
    "idefics3, sides that are no multiples": Case(
        "idefics3", "Idefics3ImageProcessorPil", lambda: {**TILES, "size": {"longest_edge": 3 * SIDE}}
    ),
    "smolvlm whole": Case("smolvlm", "SmolVLMImageProcessorPil", lambda: {**TILES, "do_image_splitting": False}),
    "pixtral": Case(
        "llava-pixtral",
        "PixtralImageProcessorPil",
        lambda: {"size": {"longest_edge": 8 * 14}, "patch_size": {"height": 14, "width": 14}},
    ),
    "mistral3": Case(
        "mistral3",
        "PixtralImageProcessorPil",
        lambda: {"size": {"longest_edge": 12 * 14}, "patch_size": {"height": 28, "width": 28}},
    ),
    "gemma3": Case("gemma3", "Gemma3ImageProcessorPil", lambda: {"size": MERGED}),
    "gemma4": Case("gemma4", "Gemma4ImageProcessorPil", lambda: {"max_soft_tokens": 70, "patch_size": 4}),
}


def faint(module: Any, args: Any, output: Any) -> Any:
    """Weaken a tower's attention: with random weights a token changes all others, some of them more than itself."""
    return (output[0] * 0.01, *output[1:]) if isinstance(output, tuple) else output * 0.01


class Tower:
    """The processor and tower of a case: pictures to tokens."""

    def __init__(self, case: Case) -> None:
        self.case, self.model = case, fresh_model(case.family)
        self.adapter: ModelAdapter = find_adapter(self.model)
        for block in self.adapter.vision_blocks():
            self.adapter.vision_attention(block).register_forward_hook(faint)
        self.image_processor = getattr(transformers, case.kind)(**case.settings())

    def selections(self, image: Image.Image) -> Selections:
        """Return the grids of a picture."""
        _, capture = self._encoded(image)
        layouts = capture.layouts[: len(capture.layouts) // self.case.images or 1]
        if self.case.images == 1:
            layouts = capture.layouts
        groups = [
            TokenGroup(
                n, one.grids, torch.arange(sum(t * h * w for t, h, w in one.grids)), one.origins, torch.arange(0)
            )
            for n, one in enumerate(layouts)
        ]
        processor = SimpleNamespace(image_processor=self.image_processor)
        shown = areas_of(self.adapter)(processor, [Part(image=image)] * self.case.images, False)
        report: Any = SimpleNamespace(groups=groups, tower=tuple(capture.grids), stages=())
        [found] = selections([report], [shown])
        return found

    def tokens(self, image: Image.Image) -> Tensor:
        """[N, D] of the first picture, without markers."""
        output, capture = self._encoded(image)
        pooled = output.pooler_output
        parts = [pooled] if isinstance(pooled, Tensor) else list(pooled)
        tokens = torch.cat([part.flatten(0, -2) for part in parts])
        layouts = capture.layouts
        markers = [
            torch.zeros(one.placeholders, dtype=torch.bool) if one.markers is None else one.markers for one in layouts
        ]
        tokens = tokens[~torch.cat(markers)]
        return tokens[: len(tokens) // self.case.images]

    def _encoded(self, image: Image.Image) -> Any:
        given = [image] * self.case.images
        nested = self.case.kind.startswith(("Smol", "Idefics", "LlavaOnevision"))
        inputs = self.image_processor([given] if nested else given, return_tensors="pt", **self.case.call)
        with torch.inference_mode(), prune(self.model, Plan(plan={0: 0.5})) as session:
            capture = session.encode(dict(inputs))
        return capture.output, capture


def painted(cell: Cell, image: Image.Image) -> tuple[Image.Image, float]:
    """Paint the middle of a token's area white; return the picture and how much of the area is in it."""
    pixels, (left, top, right, bottom) = np.array(image), cell.area
    inner = (max(left, 0), max(top, 0), min(right, 1), min(bottom, 1))
    share = max(inner[2] - inner[0], 0) * max(inner[3] - inner[1], 0) / ((right - left) * (bottom - top))
    x, y = (right - left) / 5, (bottom - top) / 5
    middle = (left + x, top + y, right - x, bottom - y)
    x0, y0, x1, y1 = (round(max(edge, 0) * image.size[i % 2]) for i, edge in enumerate(middle))
    pixels[y0:y1, x0:x1] = 255
    return Image.fromarray(pixels), share


def sizes() -> list[Any]:
    """Every case with the first of its sizes, and with the others where all matrices are run."""
    return [
        pytest.param(name, size, marks=() if size == case.sizes[0] else pytest.mark.exhaustive)
        for name, case in CASES.items()
        for size in case.sizes
    ]


@pytest.mark.parametrize(("name", "size"), sizes())
def test_what_is_painted_in_a_tokens_area_changes_that_token(name: str, size: tuple[int, int]) -> None:
    """Of every grid, corners, middle and others: no other token of the grid changes as much."""
    tower, plain = Tower(CASES[name]), photo(*size)  # of one colour a trace of white at a token's edge would show, too
    found, before = tower.selections(plain), tower.tokens(plain)
    cells, start, tried = list(found.cells()), 0, 0
    assert len(cells) == len(before) == found.tokens
    for grid in found.grids:
        count = grid.tokens
        for number in {count // 3, count - 1}:
            image, share = painted(cells[start + number], plain)
            if share < 0.6:  # padding
                continue
            change = (tower.tokens(image) - before)[start : start + count].norm(dim=-1)
            assert int(change.argmax()) == number, (grid, number)
            tried += 1
        start += count
    assert tried >= 1


def test_every_family_describes_its_areas_or_is_refused() -> None:
    """No family has a default that would draw tokens in the wrong place."""
    with pytest.raises(UnsupportedError, match=r"areas of a picture .* are not described"):
        ModelAdapter.image_areas(find_adapter(build("llava")), None, (1, 1), 1)
