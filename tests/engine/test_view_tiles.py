"""`view.tiles`: the tile of every token, and the one that shows the whole image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.test_vision_quantities import seen
from tests.helpers.tiny import build, inputs
from uniprune.modeling.families import find_adapter
from uniprune.pruning.view import View


def tiles(family: str, x: dict[str, Tensor], **more: Any) -> list[tuple[list[int], int] | None]:
    """Return numbers and overview of every view."""

    def look(view: View) -> tuple[list[int], int] | None:
        return None if view.tiles is None else (view.tiles.of.tolist(), view.tiles.overview)

    found: list[tuple[list[int], int] | None] = seen(family, look, (None,), x, **more)
    return found


def packed(family: str, pixels: list[int]) -> list[int]:
    """Return the tile of every token of an image, as the model packs tiles that hold their numbers."""
    adapter: Any = find_adapter(build(family))
    rows, columns = adapter._shape(pixels)
    count, width = adapter._side**2, 1 + rows * columns
    numbers = torch.arange(width).float()[:, None, None].expand(width, count, 1)
    more = {"vision_aspect_ratio": "anyres_max_9"} if family == "llava_onevision" else {}
    place = "full" if family == "llava_onevision" else "default"
    given = [[numbers], [pixels], *([] if more else [place])]
    (joined,), _ = build(family).base_model.pack_image_features(*given, image_newline=torch.tensor([-1.0]), **more)
    found: list[int] = joined[joined >= 0].long().tolist()
    return found


@pytest.mark.parametrize("family", ["llava_next", "llava_next-mistral", "llava_onevision"])
def test_the_first_tile_of_an_image_shows_all_of_it(family: str) -> None:
    x = inputs(family, (1, 2))
    wanted = [(packed(family, pixels), 0) for pixels in x["image_sizes"].tolist()]
    assert tiles(family, x) == wanted
    assert tiles(family, x, scope="tile") == [None] * sum(max(of) + 1 for of, _ in wanted)


@pytest.mark.parametrize("family", ["internvl", "smolvlm"])
def test_the_last_tile_of_an_image_shows_all_of_it(family: str) -> None:
    x = inputs(family, (1,), tiles=3)
    ((of, overview),) = filter(None, tiles(family, x))
    size = len(of) // 3
    assert (of, overview) == ([0] * size + [1] * size + [2] * size, 2)
    assert tiles(family, x, scope="tile") == [None] * 3


def test_images_that_are_not_cut_have_no_tiles() -> None:
    for family in ("llava", "internvl", "qwen2_5_vl"):
        assert tiles(family, inputs(family)) == [None]


def test_what_is_left_of_an_image_keeps_its_tiles() -> None:
    found: list[tuple[Tensor, Tensor]] = []

    def look(view: View) -> None:
        assert view.tiles is not None
        found.append((view.tiles.of, view.cells))

    seen("llava_next", look, (None,), inputs("llava_next"), plan={0: 0.5, 2: 0.2})
    (before, _), (after, cells) = found
    assert after.tolist() == before[cells].tolist()
