"""Stages before blocks of the vision tower equal a hand-written loop over its blocks on the patches that are left."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.oracles import VISUAL, deepstack_rows, dropped_by, merged_inputs, physically_short
from tests.helpers.pruners import generate
from tests.helpers.tiny import build, inputs
from uniprune.conformance.state import weights
from uniprune.engine import PrefillReport, prune
from uniprune.errors import UnsupportedError, UserError
from uniprune.methods.fastv import FastV
from uniprune.methods.random_tower import RandomTower
from uniprune.modeling.families import find_adapter
from uniprune.modeling.varlen import VARLEN, use_tower_attention
from uniprune.pruning.base import Pruner

SIDE_BY_SIDE = ("llava", "llava-siglip-qwen2", "internvl", "gemma3")
SEQUENCES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_5", "glm4v")
REFUSED = ("llava_next", "llava_onevision", "smolvlm", "llava-pixtral", "gemma4")
METHOD = RandomTower(ratio=0.4)


def seen(model: Any, x: dict[str, Tensor], pruner: Pruner) -> tuple[PrefillReport, list[Tensor], list[Any]]:
    """Return a prefill's report, and per image the cells that stay and their features inside the session."""
    vision = {name: x[name] for name in VISUAL if name in x}
    with prune(model, pruner) as session, torch.no_grad():
        model(**x)
        output = model.get_image_features(**vision, return_dict=True).pooler_output
    report = session.reports[-1]
    kept = [cells for row in report.rows for cells in row.stages[0].kept]
    flat = torch.cat([one.flatten(0, -2) for one in output])
    sizes = [prod(grid) for row in report.rows for group in row.groups for grid in group.grids]
    return report, kept, list(flat.split(sizes))


def entering(model: Any, x: dict[str, Tensor]) -> tuple[Tensor, list[dict[str, Any]]]:
    """Return the states that enter block 0 of the un-pruned tower, and the other arguments of every block."""
    blocks, calls = find_adapter(model).vision_blocks(), list[Any]()
    hooks = [
        block.register_forward_pre_hook(lambda m, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
        for block in blocks
    ]
    vision = {name: x[name] for name in VISUAL if name in x}
    with torch.no_grad():
        model.get_image_features(**vision, return_dict=True)
    for hook in hooks:
        hook.remove()
    args, kwargs = calls[0]
    return (args[0] if args else kwargs["hidden_states"]), [kwargs for _, kwargs in calls]


@torch.no_grad()
def alone(model: Any, states: Tensor, kept: Tensor, block: int) -> Tensor:
    """Run a tower on one image [cls + patches, C] whose patches [n] are the only ones left from a block on."""
    adapter = find_adapter(model)
    classes, rows = int(adapter.has_cls), states[None]
    for number, layer in enumerate(adapter.vision_blocks()[: adapter.last_block() + 1]):
        if number == block:
            rows = torch.cat((rows[:, :classes], rows[:, classes:][:, kept]), 1)
        rows = layer(rows) if adapter.base.config.model_type == "internvl" else layer(rows, None)
    return rows[0, classes:]


@torch.no_grad()
def in_sequence(model: Any, x: dict[str, Tensor], cells: Sequence[Tensor], block: int) -> list[Tensor]:
    """Run a tower on sequences, window by window, with the patches of some cells of every image from a block on.

    Returns the [4 k, C] states of each image's kept patches, in raster order of their tokens.
    """
    tower = find_adapter(model).vision
    states, calls = entering(model, x)
    cos, sin = calls[0]["position_embeddings"]
    token, window = places(model, x["image_grid_thw"].tolist())
    stays = torch.cat([torch.isin(torch.arange(int(grid.prod()) // 4), own) for grid, own in images(x, cells)])
    frame = torch.cat([torch.full((int(grid.prod()),), i) for i, grid in enumerate(x["image_grid_thw"])])
    for number, layer in enumerate(tower.blocks):
        whole = number in getattr(tower, "fullatt_block_indexes", range(len(tower.blocks)))
        alike, after = (frame if whole else window), torch.zeros_like(states)
        for one in alike.unique():
            rows = ((alike == one) & (stays[token] if number >= block else True)).nonzero()[:, 0]
            if len(rows):
                bounds, tables = torch.tensor([0, len(rows)], dtype=torch.int32), (cos[rows], sin[rows])
                after[rows] = layer(states[rows], cu_seqlens=bounds, position_embeddings=tables)
        states = after
    order = token.argsort(stable=True)
    starts = [0, *torch.tensor([int(grid.prod()) // 4 for grid, _ in images(x, cells)]).cumsum(0).tolist()]
    by_token = states[order].unflatten(0, (-1, 4))
    return [by_token[start + own].flatten(0, 1) for start, (_, own) in zip(starts, images(x, cells), strict=False)]


def images(x: dict[str, Tensor], cells: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x["image_grid_thw"], cells, strict=True))


def places(model: Any, grids: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return [S] for every place of the sequence its token, in raster order, and its window."""
    tower, token, window, start, windows = find_adapter(model).vision, list[int](), list[int](), 0, 0
    for _, height, width in grids:
        rows, columns = height // 2, width // 2
        side = 2 if hasattr(tower, "fullatt_block_indexes") else max(rows, columns)
        tiles = [(top, left) for top in range(0, rows, side) for left in range(0, columns, side)]
        for number, (top, left) in enumerate(tiles):
            for row in range(top, min(top + side, rows)):
                for column in range(left, min(left + side, columns)):
                    token += [start + row * columns + column] * 4
                    window += [windows + number] * 4
        start, windows = start + rows * columns, windows + len(tiles)
    return torch.tensor(token), torch.tensor(window)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("family", SIDE_BY_SIDE)
def test_towers_of_tiles_equal_a_loop(family: str, block: int, attention: str) -> None:
    model, x = build(family, attention), inputs(family, (2, 1))
    adapter = find_adapter(model)
    _, kept, features = seen(model, x, replace(METHOD, block=block))
    states, _ = entering(model, x)
    grid = adapter.grids((), x)
    for image, (cells, found) in enumerate(zip(kept, features, strict=True)):
        places = adapter.patch_places(grid[:1])[cells].flatten().sort().values
        want = torch.zeros(prod(grid[0]) * adapter.merge**2, states.shape[-1])
        want[places] = alone(model, states[image], places, block)
        if family == "gemma3":
            want = adapter.vision.post_layernorm(want)
        tokens = adapter.features(projected_input(family, model, want[None]), grid[:1])[0]
        torch.testing.assert_close(found[cells], adapter.project(tokens)[cells], atol=1e-5, rtol=1e-4)


def projected_input(family: str, model: Any, states: Tensor) -> Tensor:
    """Return what enters the projector for states [1, patches, C] of the tower."""
    if family != "internvl":
        return states
    side = int(states.shape[1] ** 0.5)
    shuffled = model.base_model.pixel_shuffle(model.base_model.vision_tower.layernorm(states).view(1, side, side, -1))
    return shuffled.flatten(1, 2)


@pytest.mark.parametrize("attention", ["sdpa", "eager", VARLEN])
@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("family", SEQUENCES)
def test_towers_of_sequences_equal_a_loop(family: str, block: int, attention: str) -> None:
    model, x = build(family, "sdpa" if attention == VARLEN else attention), inputs(family, (2, 1))
    want_from = model
    if attention == VARLEN:
        model = copy.deepcopy(model)
        use_tower_attention(model, VARLEN)
    _, kept, features = seen(model, x, replace(METHOD, block=block))
    assert len({len(cells) for cells in kept}) > 1, "images of several sizes"
    want = in_sequence(want_from, x, kept, block)
    tower = find_adapter(want_from).vision
    for cells, found, states in zip(kept, features, want, strict=True):
        with torch.no_grad():
            tokens = finished(family, tower, states)
        torch.testing.assert_close(found[cells], tokens, atol=1e-5, rtol=1e-4)


def finished(family: str, tower: Any, states: Tensor) -> Tensor:
    """Return the LLM tokens of states [4 k, C] that leave the last block."""
    if family != "glm4v":
        merged: Tensor = tower.merger(states)
        return merged
    pairs = tower.post_layernorm(states).view(-1, 2, 2, states.shape[-1]).permute(0, 3, 1, 2)
    projected: Tensor = tower.merger(tower.downsample(pairs).view(-1, tower.config.out_hidden_size))
    return projected


@pytest.mark.parametrize("family", [*SIDE_BY_SIDE, *SEQUENCES])
def test_the_patches_of_a_token_are_those_that_are_averaged(family: str) -> None:
    adapter, x = find_adapter(build(family)), inputs(family, (2,))
    grids = adapter.grids((), {**x, "grid_thw": x.get("image_grid_thw")})
    places, (states, _) = adapter.patch_places(grids), entering(build(family), x)
    values = torch.rand(states.shape[:-1])[..., None]
    found = torch.cat(adapter.to_tokens(values if values.dim() == 3 else values[None], grids))
    patches = values.flatten() if adapter.packed else values[:, int(adapter.has_cls) :].flatten()
    if not adapter.packed:
        places = (
            places
            + torch.arange(len(grids)).repeat_interleave(prod(grids[0]))[:, None] * prod(grids[0]) * adapter.merge**2
        )
    torch.testing.assert_close(found[:, 0], patches[places].mean(1))


@pytest.mark.parametrize("family", [*SIDE_BY_SIDE, *SEQUENCES])
@pytest.mark.parametrize("block", [0, 2])
def test_the_language_model_gets_the_kept_tokens(family: str, block: int) -> None:
    model, x = build(family), inputs(family, (2,))
    pruner = replace(METHOD, block=block)
    with prune(model, pruner) as session:
        tokens, logits = generate(model, x, 4)
        with torch.no_grad():
            embeds, positions = merged_inputs(model, x)
        added = deepstack_rows(model, x)
    keep = ~dropped_by(session.reports[0], x)[0][0]
    want_tokens, want = physically_short(model, embeds, positions, keep, 4, added, x["input_ids"])
    assert tokens[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=1e-5, rtol=1e-4)
    assert int((~keep).sum()) == sum(row.initial - row.entering[0] for row in session.reports[0].rows) > 0


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_keeping_everything_is_bit_identical(family: str) -> None:
    model, x = build(family), inputs(family, (2, 1))
    tokens, logits = generate(model, x)
    before = weights(model)
    with prune(model, RandomTower(ratio=1.0)) as session:
        pruned = generate(model, x)
    assert torch.equal(tokens, pruned[0])
    assert torch.equal(logits, pruned[1])
    assert not session.reports[-1].pruned
    assert weights(model) == before


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_stages_in_the_decoder_come_after(family: str) -> None:
    model, x = build(family), inputs(family, (2, 1))
    generate(model, x, 1)  # transformers adds hooks of its own in a model's first forward
    before = weights(model)
    with prune(model, METHOD >> FastV(ratio=0.5)) as session:
        generate(model, x, 2)
    assert weights(model) == before
    for row in session.reports[-1].rows:
        first, second = row.stages
        assert (first.layer, second.layer) == (0, 2)
        assert all(set(b.tolist()) < set(a.tolist()) for a, b in zip(first.kept, second.kept, strict=True))
        assert row.entering[1] == sum(map(len, first.kept)) > row.entering[2] == sum(map(len, second.kept))


def test_a_choice_depends_on_the_image_only() -> None:
    model = build("qwen2_5_vl")
    together, single = inputs("qwen2_5_vl", (2, 1)), inputs("qwen2_5_vl", (2,))
    picks = [session_picks(model, x, METHOD)[0] for x in (together, single)]
    assert all(torch.equal(a, b) for a, b in zip(*picks, strict=True))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(picks[0], session_picks(model, single, RandomTower(ratio=0.4, seed=1))[0], strict=True)
    )


def session_picks(model: Any, x: dict[str, Tensor], pruner: Pruner) -> list[tuple[Tensor, ...]]:
    with prune(model, pruner) as session, torch.no_grad():
        model(**x)
    return [row.stages[0].kept for row in session.reports[-1].rows]


@pytest.mark.parametrize("family", REFUSED)
def test_other_towers_are_refused_by_name(family: str) -> None:
    with pytest.raises(UnsupportedError, match="this family's tower cannot drop patches"), prune(build(family), METHOD):
        pass


def test_impossible_uses_are_refused() -> None:
    model, x = build("llava"), inputs("llava")
    with pytest.raises(UserError, match=r"before block 3 .* uses its blocks 0..2 only"):
        prune(model, RandomTower(ratio=0.5, block=3)).__enter__()
    with pytest.raises(UserError, match="scope must be 'tile', not 'image'"):
        RandomTower(scope="image")
    with prune(model, METHOD) as session, pytest.raises(UnsupportedError, match="without --share-vision"):
        session.encode({"pixel_values": x["pixel_values"]})
    with torch.no_grad():
        features = {"image": model.get_image_features(x["pixel_values"], return_dict=True)}
    given = {name: value for name, value in x.items() if name != "pixel_values"}
    with prune(model, METHOD), pytest.raises(UnsupportedError, match="computed outside this session"):
        model(**given, mm_encoder_outputs=features)
