"""Choices of the methods inside the vision tower equal those of the released codes, stored as numbers.

Every case becomes the view of one image, and the method's own `select` decides, in float64 and in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, Methods, golden, picked
from tests.helpers.views import make_view
from uniprune.engine.tower_merging import size_bias
from uniprune.pruning.view import BlockState


def blocks(case: Case) -> Tensor:
    """Return [N, P] pixels from 0 to 1 of the squares that become one token each."""
    side = case.patch * case.merge
    picture = case.picture.to(case.dtype).div(255).permute(2, 0, 1)[None]
    return torch.nn.functional.unfold(picture, side, stride=side)[0].T


@golden("llm_pixelprune")
def test_pixelprune(case: Case, methods: Methods) -> None:
    """On pictures, and on rows of numbers of several; the patches of a token are four in a row."""
    pictures = case.kind == "picture"
    rows = blocks(case) if pictures else case.rows
    grids = [case.grid.tolist()] if pictures else case.grids.tolist()
    counts = [len(case.keep)] if pictures else case.counts.tolist()
    pruner = methods("pixelprune")(method=case.method, metric=case.metric, tau=case.tau, anchored=case.anchored)
    assert not pruner.exact
    sizes = [height * width for height, width in grids]
    for pixels, (height, width), keep in zip(rows.split(sizes), grids, case.keep.split(counts), strict=True):
        view = make_view(torch.zeros(len(pixels), 1), grids=[(1, height, width)], pixels=pixels)
        picked(pruner.select(view, 1), keep)
    if pictures:
        assert (4 * case.keep[:, None] + torch.arange(4)).flatten().tolist() == case.keep_patches.tolist()


@golden("llm_tome")
def test_tome(case: Case, methods: Methods) -> None:
    """One block's merge with its sizes and the attention that they bias; schedules of the blocks."""
    if "schedule" in case.arrays:
        pruner = methods("tome")(r=case.schedule_r, inflection=case.schedule_inflection)
        assert not pruner.exact
        assert list(pruner.plan(10**6, 1, case.schedule_layers)) == case.schedule.tolist()
        return
    view = make_view(case.x, block=BlockState(case.keys, case.size, case.protected))
    answer = methods("tome")().select(view, len(case.x) - case.r_used)
    assert answer.indices.tolist() == case.keep.tolist()
    torch.testing.assert_close(answer.tokens, case.merged.to(case.dtype), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(view.block.merged, case.new_size.to(case.dtype))
    assert methods("tome")(r=max(case.r, 1)).plan(len(case.x) - case.protected, 1, 1) == [max(case.r_used, 1)]
    query = case.queries[:, case.attn_row_query]
    logits = (case.keys @ query[..., None])[..., 0] * query.shape[-1] ** -0.5
    biased = (logits + size_bias(case.size[None])[0, 0]).softmax(-1)
    torch.testing.assert_close(biased, case.attn_row.to(case.dtype), atol=1e-5, rtol=1e-5)
