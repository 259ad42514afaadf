"""Families whose images are several runs of placeholders: what belongs together, tower scores, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import IMAGE, build, inputs, small
from uniprune.engine import prune
from uniprune.errors import UnsupportedError, UserError
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.families import find_adapter
from uniprune.modeling.image_grouping import EncodedPrompt
from uniprune.models.mistral3 import TinyMistral3
from uniprune.models.pixtral import Pixtral
from uniprune.models.smolvlm import tiles_to_global

TILED = ("smolvlm", "idefics3")
ROWS = ("llava-pixtral", "mistral3")


# --- images ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", TILED)
@pytest.mark.parametrize("scope", ["image", "prompt", "grid", "tile"])
def test_tiles_of_an_image_share_its_budget(family: str, scope: Any) -> None:
    model, x = build(family), inputs(family, (2, 1))
    with prune(model, Plan(plan={0: 0.5}, scope=scope)) as session:
        generate(model, x, 1)
    tile = (1, 4, 4)
    wanted = {
        "image": [[(tile,) * 3, (tile,)], [(tile,) * 3]],
        "prompt": [[(tile,) * 4], [(tile,) * 3]],
    }.get(scope, [[(tile,)] * 4, [(tile,)] * 3])
    rows = session.reports[-1].rows
    assert [[group.grids for group in row.groups] for row in rows] == wanted
    assert [[len(kept) for kept in row.stages[0].kept] for row in rows] == [
        [8 * len(grids) for grids in row] for row in wanted
    ]


@pytest.mark.parametrize("family", ROWS)
def test_rows_of_an_image_share_its_budget_and_their_ends_are_text(family: str) -> None:
    model, x = build(family), inputs(family, (2,))
    with prune(model, Plan(plan={0: 0.5, 2: 0.0})) as session:
        generate(model, x, 1)
    [row] = session.reports[-1].rows
    assert [group.grids for group in row.groups] == [((1, 4, 6),), ((1, 4, 4),)]
    assert (row.initial, row.entering, row.markers) == (40, [20, 20, 0, 0, 0], [0] * 5)
    assert row.text == x["input_ids"].shape[1] - 40  # eight ends of rows among them


@pytest.mark.parametrize("family", [*TILED, *ROWS])
def test_features_from_outside(family: str) -> None:
    """Tags tell tiles apart in any case; rows are not known to be an image without its size."""
    model, x = build(family), inputs(family, (2,))
    visual = {name: x[name] for name in ("pixel_values", "image_sizes") if name in x}
    with torch.no_grad():
        features = model.get_image_features(**visual, return_dict=True)
    rest = {name: value for name, value in x.items() if name not in visual}
    with prune(model, RandomPre(ratio=0.5)) as session:
        if family in ROWS:
            with pytest.raises(UnsupportedError, match="unknown which runs of placeholders make up an image"):
                model(**rest, mm_encoder_outputs={"image": features})
        else:
            model(**rest, mm_encoder_outputs={"image": features})
            assert [len(group.ranks) for group in session.reports[-1].rows[0].groups] == [48, 16]


MARK, PART, WHOLE = [90], [91, 92, 93], [91, 95, 93]
"""Tags of several ids, some of them the same, as the tokenizer of Idefics3-8B cuts them."""


def written(*tiles: int, tag: list[int] = WHOLE) -> EncodedPrompt:
    """A prompt of images of so many tiles, two placeholders each."""
    ids = [1, 90, 2]
    for count in tiles:
        ids += [*[*MARK, *PART, IMAGE, IMAGE] * (count - 1), 13, *MARK, *tag, IMAGE, IMAGE, *MARK, 7]
    tokens = torch.tensor([*ids, 8])
    return EncodedPrompt(0, tokens, (tokens == IMAGE).nonzero()[:, 0], [2] * sum(tiles), True)


@pytest.mark.parametrize("tiles", [(1,), (5,), (3, 1, 4), (1, 1, 3)])
def test_tags_of_several_tokens_tell_the_global_tile(tiles: tuple[int, ...]) -> None:
    assert tiles_to_global(written(*tiles)) == list(tiles)


def test_tiles_without_tags_are_refused() -> None:
    good = written(3)
    assert good.ids is not None
    without_ids = EncodedPrompt(2, None, good.places, good.sizes, True)
    touching = EncodedPrompt(2, good.ids, torch.arange(4, 10), good.sizes, True)
    at_the_end = EncodedPrompt(2, good.ids[: int(good.places[-1]) + 1], good.places, good.sizes, True)
    for prompt in (without_ids, touching, at_the_end, written(3, tag=[])):
        with pytest.raises(UnsupportedError, match="tiles without the marks and tags"):
            tiles_to_global(prompt)


@pytest.mark.parametrize("family", TILED)
def test_an_image_of_two_tiles_is_none(family: str) -> None:
    adapter = small(family).adapter
    assert [adapter.image_of(16 * tiles)[1] for tiles in (1, 3, 5)] == [1, 3, 5]
    with pytest.raises(UserError, match="one tile or three and more, 16 visual tokens each, so 32 are"):
        adapter.image_of(32)


# --- tower ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layer", [0, -1])
@pytest.mark.parametrize("family", [*TILED, *ROWS])
def test_tower_equals_eager(family: str, layer: int) -> None:
    """Attention each token's patches receive from those of their tile or image, and the states that enter."""
    x = inputs(family, (2,))
    look = lambda view: (view.vision.received(layer), view.vision.hidden(layer))  # noqa: E731
    probe = Probe(look=look, layers=(layer,), plan={0: 0.5}, scope="tile")
    with prune(build(family), probe):
        generate(build(family), x, 1)
    model = build(family, "eager")
    tower, adapter = find_adapter(model).vision, find_adapter(model)
    pixels = x["pixel_values"].flatten(0, -4) if family in TILED else x["pixel_values"]
    options = {} if family in TILED else {"image_sizes": x["image_sizes"]}
    with torch.no_grad():
        out = tower(pixels, **options, output_attentions=True, output_hidden_states=True)
    received = out.attentions[layer].mean(1).sum(1)  # over heads, and over queries
    hidden = out.hidden_states[layer - 1 if layer < 0 else layer]
    grids, side = list(map(tuple, adapter.grids((pixels,), options))), adapter.merge
    for (scores, states), want in zip(probe.seen.values(), cut(received, hidden, grids, side), strict=True):
        torch.testing.assert_close(scores, want[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(states, want[1], atol=1e-4, rtol=1e-3)


def cut(received: Tensor, hidden: Tensor, grids: list[Any], side: int) -> list[tuple[Tensor, Tensor]]:
    """The mean over `side` x `side` patches of every image, and of attention the share of a patch's own image."""
    found, received, hidden = [], received.flatten(), hidden.flatten(0, 1)
    for _, height, width in grids:
        count = height * width * side**2
        scores, states = received[:count, None] / count, hidden[:count]
        maps = [part.T.reshape(1, -1, height * side, width * side) for part in (scores, states)]
        pooled = [F.avg_pool2d(part, side).flatten(2)[0].T for part in maps]
        found.append((pooled[0][:, 0], pooled[1]))
        received, hidden = received[count:], hidden[count:]
    return found


@pytest.mark.parametrize("family", TILED)
def test_scores_of_padded_tiles_are_refused(family: str) -> None:
    """Frames of a video are padded to squares; methods without tower scores run."""
    model, x = build(family), inputs(family)
    mask = torch.ones(*x["pixel_values"].shape[:2], *x["pixel_values"].shape[3:], dtype=torch.bool)
    mask[:, :, -56:] = False
    with prune(model, RandomPre(ratio=0.5)) as session:
        generate(model, x | {"pixel_attention_mask": mask}, 1)
    assert session.reports[-1].pruned
    probe = Probe(look=lambda view: view.vision.received(-1), layers=(-1,), plan={0: 0.5})
    with prune(model, probe), pytest.raises(UnsupportedError, match="a tile is padded within"):
        generate(model, x | {"pixel_attention_mask": mask}, 1)


# --- other models ---------------------------------------------------------------------------------------------------
def test_the_tower_tells_pixtral_from_llava() -> None:
    assert type(find_adapter(build("llava-pixtral"))) is Pixtral
    assert find_adapter(build("llava-pixtral")).model.config.model_type == "llava"
    assert type(find_adapter(build("llava"))).__name__ == "Llava"


def test_mistral_3_has_no_images_of_one_token() -> None:
    """Transformers fails on them; if that changes, the tiny model need not avoid them."""
    tiny, generator = TinyMistral3((1, 1)), torch.Generator().manual_seed(0)
    image = tiny.adapter.random_image((1, 1), 1, generator)
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        build("mistral3").get_image_features(**image, return_dict=True)
    assert tiny.prompt(generator, [(1, 1)]).ids.count(IMAGE) == 2
