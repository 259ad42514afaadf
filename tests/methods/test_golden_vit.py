"""ViT-only methods against the released code of their papers: inputs and outputs in tests/golden come from running it.

Every case becomes a view, and the method's own `select` decides. Producers (repository @ commit): G-Prune
TianfanPeng/VLMUniPruneBench @ f93768fcc159 and jytmelon/G-Prune @ 762c63771212 (case 9, LLaVA-NeXT's layout); PruMerge
42Shawn/LLaVA-PruMerge @ 097c04116a58; VisPruner Theia-4869/VisPruner @ aefa01adc7c7 (the `ext` cases are the extension
of its rule to odd counts where it crashes); VisionZip dvlab-research/VisionZip @ 3151f6df4fca; CDPruner
Theia-4869/CDPruner @ 9541616c40fc. FoPru and ZSPAPrune have no code: their vectors are readings of the papers. Counts
are those of the producers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, Methods, golden, picked, same
from tests.helpers.views import Tower, decide, make_view
from uniprune.engine.tower_attention import exchanged
from uniprune.pruning.base import Selection
from uniprune.pruning.budget import keep_count
from uniprune.pruning.functional import cosine_similarity
from uniprune.pruning.view import View


def view_of(features: Tensor, **given: Any) -> View:
    """A view of `features` entering a projector that doubles them."""
    return make_view(2 * features, vision=Tower(features=features, **given))


def check_merged(answer: Selection, want: Tensor) -> None:
    """Require tokens `want`, as they were before the projector."""
    assert answer.tokens is not None
    torch.testing.assert_close(answer.tokens.float() / 2, want.float(), rtol=1e-4, atol=1e-4)


@golden("vit_divprune")
def test_divprune(case: Case, methods: Methods) -> None:
    method, view = methods("divprune")(), make_view(case.features)
    assert case.keep_num == keep_count(len(case.features), case.ratio)
    same(method.select(view, case.keep_num), case.order)
    picked(decide(method, view, case.keep_num), case.keep)


@golden("vit_random")
def test_random_pre(case: Case, methods: Methods) -> None:
    """The released permutation, and with `order="release"` its order. It draws for one tile, then for all others."""
    generator, start, picks = torch.Generator().manual_seed(case.seed), 0, []
    method = methods("random-pre")(order="release")
    assert method.random
    for count in [case.tokens_per_tile, case.tokens_per_tile * (case.tiles - 1)][: min(case.tiles, 2)]:
        view = make_view(torch.arange(count)[:, None].to(case.dtype), generator=generator, initial=2 * count)
        answer = decide(method, view, max(1, int(case.ratio * count)))
        assert answer.tokens is not None
        picked(answer, answer.tokens[:, 0].sort().values)
        picks.append(start + answer.tokens[:, 0])
        start += count
    same(torch.cat(picks), case.order)


@golden("vit_gprune")
def test_gprune(case: Case, methods: Methods) -> None:
    method = methods("gprune")()
    if "grid" in case.arrays:
        check_anyres(case, method)
        return
    view = make_view(case.features)
    picks = method.select(view, case.keep_num)
    same(picks, case.order)
    assert all(case.scores64[one] >= case.scores64[other] for one, other in pairwise(picks))
    picked(decide(method, view, case.keep_num), case.keep)


def check_anyres(case: Case, method: Any) -> None:
    """LLaVA-NeXT's sequence: a base tile, then rows of patches that each end in a newline token, all of which stay."""
    rows, columns = case.grid.tolist()
    places = 576 + torch.arange(rows * (columns + 1)).view(rows, columns + 1)
    kept = [places[:, -1]]
    for unit in (torch.arange(576), places[:, :-1].flatten()):
        kept.append(unit[decide(method, make_view(case.features[unit]), int(case.ratio * len(unit))).indices])
    picked(torch.cat(kept), case.keep)


def prumerge_view(case: Case) -> View:
    """The released attention: one head as wide as the layer, CLS in the softmax but left out afterwards."""
    attention = (case.keys @ case.q_cls / case.q_cls.shape[0] ** 0.5).softmax(0)[1:]
    torch.testing.assert_close(attention.double(), case.cls_attn64, rtol=1e-4, atol=1e-9)
    last = {"layer": -1}
    return view_of(case.features, importance=(attention, {"joint": True, **last}), keys=(case.keys[1:], last))


@golden("vit_prumerge")
def test_prumerge(case: Case, methods: Methods) -> None:
    view, keep = prumerge_view(case), len(case.merged)
    method = methods("prumerge")(adaptive=case.adaptive)
    assert method.exact is not case.adaptive
    check_merged(decide(methods("prumerge")(adaptive=case.adaptive, order="release"), view, keep), case.merged)
    raster = method.select(view, keep)
    same(raster.indices[:-1], case.order)
    assert int(raster.indices[-1]) == max(set(range(len(case.features))) - set(case.order.tolist()))
    check_merged(raster, case.merged)


@golden(
    "vit_prumerge_plus",
    excluded={"case3": "the release's variant for training picks tokens twice and loses others, which is not offered"},
)
def test_prumerge_plus(case: Case, methods: Methods) -> None:
    view = prumerge_view(case)
    check_merged(decide(methods("prumerge+")(adaptive=True, order="release"), view, 1), case.merged)
    raster = methods("prumerge+")(adaptive=True).select(view, 1)
    same(raster.indices[:-1], case.order)
    check_merged(raster, case.merged)


@golden("vit_vispruner")
def test_vispruner(case: Case, methods: Methods) -> None:
    """Exact even where one part in 10^7 of noise changes the choice (case 3), since it compares in float64."""
    view = view_of(case.features, importance=case.cls_attn.mean(0))
    view.tokens = view.tokens.roll(1, 1) ** 2  # what the projector makes of features is not compared
    picked(decide(methods("vispruner")(important=case.important_ratio), view, case.keep_num), case.keep)


@golden("vit_visionzip")
def test_visionzip(case: Case, methods: Methods) -> None:
    view = view_of(
        case.hidden[1:],
        importance=case.cls_attn[:, 1:].mean(0),
        keys=(case.key_metric[1:], {"head_mean": True}),
        cls_tokens=case.hidden[:1],
    )
    keep, make = case.dominant + case.contextual, methods("visionzip")
    share = case.contextual / keep
    check_merged(decide(make(contextual=share, cls=True, order="release"), view, keep), case.merged)
    raster = make(contextual=share, cls=True).select(view, keep)
    check_merged(raster, case.merged)
    same(raster.indices[1 : case.dominant], case.keep[1:] - 1)
    same(raster.indices[case.dominant :], case.context_targets - 1)
    without = make(contextual=case.contextual / (keep - 1)).select(view, keep - 1)
    same(without.indices, raster.indices[1:])
    check_merged(without, case.merged[1:])


@golden("vit_cdpruner")
def test_cdpruner(case: Case, methods: Methods) -> None:
    """The release takes relevance from CLIP's space (negated, scaled over the batch) and the kernel from the projector.

    Two more dimensions of the tokens, too small to matter to the kernel, make up a question with that relevance: its
    two embeddings, of different length, have similarities whose mean it is. Two more tokens, unlike all others, have
    the batch's lowest and highest: the first is chosen last, the second first, and neither changes another choice.
    """
    cosines = cosine_similarity(case.image_embeds.flatten(0, 1), case.text_embeds).mean(-1)
    weights = (cosines.max() - cosines) / (cosines.max() - cosines.min())
    torch.testing.assert_close(weights.double(), case.relevance64.flatten(), rtol=1e-4, atol=1e-5)
    for features, weight, keep in zip(
        case.features, weights.view(case.image_embeds.shape[:2]), case.keep, strict=False
    ):
        want = torch.cat([keep, torch.tensor([len(features) + 1])])
        tokens = torch.block_diag(features, torch.eye(2).to(features))
        relevance = torch.cat([weight, torch.arange(2).to(weight)])
        for invert in (False, True):
            view = related(tokens, -relevance if invert else relevance)
            picked(decide(methods("cdpruner")(invert=invert), view, case.keep_num + 1), want)


def related(features: Tensor, relevance: Tensor) -> View:
    """A view of `features` [N, D] whose mean cosine to the question grows linearly with `relevance` [N]."""
    length, small = features.norm(dim=1, keepdim=True), 3e-3
    apart = torch.linspace(-9, 9, len(features)).to(features).sin()
    more = torch.stack((1 + relevance + apart, 1 + relevance - apart), dim=1) * length * small
    tokens, prompt = torch.cat([features, more], dim=1), features.new_zeros(2, features.shape[1] + 2)
    prompt[0, -2], prompt[1, -1] = 1, 5
    return make_view(tokens, prompt=prompt, text=prompt.flip(1))


@golden("vit_zspaprune")
def test_zspaprune(case: Case, methods: Methods) -> None:
    view = make_view(case.features, prompt=case.prompt, text=case.prompt.flip(1))
    own = {} if case.core_fraction == 0.2 else {"k": case.core_fraction}
    method = methods("zspaprune")(**own)
    same(method.select(view, case.keep_num), case.order)
    picked(decide(method, view, case.keep_num), case.keep)
    core = methods("zspaprune")(k=1).select(view, case.core_num)
    same(core, case.order[: case.core_num])
    assert all(case.relevance64[one] >= case.relevance64[other] for one, other in pairwise(core))


def fopru_view(case: Case) -> View:
    """In float32 by the engine, which is handed queries whose logits are the logarithms of the attention."""
    cls = int(case.has_cls)
    if case.dtype == torch.float32:
        keys = torch.eye(case.attn.shape[-1])[None, None].expand(1, len(case.attn), -1, -1)
        pair = exchanged(case.attn.log()[None], keys, 1.0, [(0, case.attn.shape[-1])], cls)[0, cls:].T
    else:
        patches = case.attn[:, cls:, cls:].mean(0)
        pair = torch.stack((patches.mean(1), patches.mean(0)))
    height, width = case.grid.tolist()
    tokens = torch.arange(height * width)[:, None].to(pair)
    return make_view(tokens, grids=[(1, height, width)], vision=Tower(exchanged=pair))


@golden("vit_fopru")
def test_fopru(case: Case, methods: Methods) -> None:
    view = fopru_view(case)
    torch.testing.assert_close(
        view.vision.exchanged()[int("s2" in case.direction)].double(), case.significance64, rtol=1e-4, atol=0
    )
    assert case.keep_num == keep_count(len(view.tokens), case.ratio)
    pair = view.vision.exchanged()
    for strategy, keep in (("rank", case.rank_keep), ("row", case.row_keep)):
        method = methods("fopru")(strategy=strategy, ratio=case.ratio)
        assert method.exact is (strategy == "rank")
        for directions in (pair.flip(0), pair):  # the direction follows from the variance, not from its place
            view.vision = Tower(exchanged=directions)
            picked(decide(method, view, case.keep_num), keep)
    ranked = methods("fopru")(order="release").select(view, case.keep_num)
    assert all(case.significance64[one] >= case.significance64[other] for one, other in pairwise(ranked))
