"""ViT-only methods against the released code of their papers: inputs and outputs in tests/golden come from running it.

Producers (repository @ commit): G-Prune TianfanPeng/VLMUniPruneBench @ f93768fcc159 and jytmelon/G-Prune @ 762c63771212
(case 9, LLaVA-NeXT's layout); PruMerge 42Shawn/LLaVA-PruMerge @ 097c04116a58; VisPruner Theia-4869/VisPruner @
aefa01adc7c7 (the `ext` cases are the extension of its rule to odd counts where it crashes); VisionZip
dvlab-research/VisionZip @ 3151f6df4fca; CDPruner Theia-4869/CDPruner @ 9541616c40fc. FoPru and ZSPAPrune have no code:
their vectors are readings of the papers. Counts are those of the producers.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, golden
from tests.helpers.views import decide, make_view
from uniprune.engine.attention import exchanged
from uniprune.methods.cdpruner import conditional_kernel, unit_range
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fopru import FoPru, significance
from uniprune.methods.gprune import GPrune, graph_scores
from uniprune.methods.prumerge import PruMerge
from uniprune.methods.prumerge_plus import PruMergePlus
from uniprune.methods.random_pre import RandomPre
from uniprune.methods.visionzip import VisionZip
from uniprune.methods.vispruner import VisPruner
from uniprune.methods.zspaprune import ZSPAPrune, relevance
from uniprune.pruning.base import Selection
from uniprune.pruning.budget import keep_count
from uniprune.pruning.functional import cosine_similarity
from uniprune.pruning.greedy import dpp_map
from uniprune.pruning.view import View


def view_of(tokens: Tensor, **vision: Any) -> View:
    """A view whose projector does nothing; other vision quantities are given as values."""
    answers = {name: partial(lambda value, *_, **__: value, value) for name, value in vision.items()}
    return make_view(
        tokens,
        vision=SimpleNamespace(features=lambda: tokens, project=lambda x: x, patches=1, **answers),
    )


def same(got: Tensor | Selection, want: Tensor) -> None:
    indices = got.indices if isinstance(got, Selection) else got
    assert indices.sort().values.tolist() == want.tolist()


@golden("vit_divprune")
def test_divprune(case: Case) -> None:
    assert case.keep_num == keep_count(len(case.features), case.ratio)
    picks = DivPrune().select(make_view(case.features), case.keep_num)
    assert picks.tolist() == case.order.tolist()
    same(picks, case.keep)


@golden("vit_random")
def test_random_pre(case: Case) -> None:
    """The released permutation, and with `order="release"` its order. It draws for one tile, then for all others."""
    generator, start, picks = torch.Generator().manual_seed(case.seed), 0, []
    for count in [case.tokens_per_tile, case.tokens_per_tile * (case.tiles - 1)][: min(case.tiles, 2)]:
        view = make_view(torch.arange(count)[:, None].to(case.dtype), generator=generator)
        answer = decide(RandomPre(order="release"), view, max(1, int(case.ratio * count)))
        assert answer.tokens is not None
        same(answer, answer.tokens[:, 0].sort().values)
        picks.append(start + answer.tokens[:, 0])
        start += count
    assert torch.cat(picks).tolist() == case.order.tolist()


@golden("vit_gprune")
def test_gprune(case: Case) -> None:
    if "grid" in case.arrays:
        check_anyres(case)
        return
    picks = GPrune().select(make_view(case.features), case.keep_num)
    assert picks.tolist() == case.order.tolist()
    same(picks, case.keep)
    scores = graph_scores(case.features, 0.5, 0.03, 5)
    tolerance = 1e-3 if case.dtype == torch.float32 else 1e-9
    torch.testing.assert_close(scores.double(), case.scores64, rtol=tolerance, atol=0)


def check_anyres(case: Case) -> None:
    """LLaVA-NeXT's sequence: a base tile, then rows of patches that each end in a newline token, all of which stay."""
    rows, columns = case.grid.tolist()
    places = 576 + torch.arange(rows * (columns + 1)).view(rows, columns + 1)
    kept = [places[:, -1]]
    for unit in (torch.arange(576), places[:, :-1].flatten()):
        kept.append(unit[GPrune().select(make_view(case.features[unit]), int(case.ratio * len(unit)))])
    same(torch.cat(kept), case.keep)


def prumerge_view(case: Case) -> View:
    """The released attention: one head as wide as the layer, CLS in the softmax but left out afterwards."""
    attention = (case.keys @ case.q_cls / case.q_cls.shape[0] ** 0.5).softmax(0)[1:]
    torch.testing.assert_close(attention.double(), case.cls_attn64, rtol=1e-4, atol=1e-9)
    return view_of(case.features, importance=attention, keys=case.keys[1:])


def check_merged(answer: Selection, case: Case) -> None:
    assert answer.tokens is not None
    torch.testing.assert_close(answer.tokens.float(), case.merged.float(), rtol=1e-4, atol=1e-4)


@golden("vit_prumerge")
def test_prumerge(case: Case) -> None:
    view, keep = prumerge_view(case), len(case.merged)
    method = PruMerge(adaptive=case.adaptive, order="release")
    assert method.exact is not case.adaptive
    check_merged(decide(method, view, keep), case)
    raster = PruMerge(adaptive=case.adaptive).select(view, keep)
    assert raster.indices[:-1].tolist() == case.order.tolist()
    assert int(raster.indices[-1]) == max(set(range(len(case.features))) - set(case.order.tolist()))
    check_merged(raster, case)


@golden(
    "vit_prumerge_plus",
    excluded={"case3": "the release's variant for training picks tokens twice and loses others, which is not offered"},
)
def test_prumerge_plus(case: Case) -> None:
    view = prumerge_view(case)
    check_merged(decide(PruMergePlus(adaptive=True, order="release"), view, 1), case)
    raster = PruMergePlus(adaptive=True).select(view, 1)
    assert raster.indices[:-1].tolist() == case.order.tolist()
    check_merged(raster, case)


@golden("vit_vispruner")
def test_vispruner(case: Case) -> None:
    """Exact even where one part in 10^7 of noise changes the choice (case 3), since it compares in float64."""
    view = view_of(case.features, importance=case.cls_attn.mean(0))
    same(VisPruner(important=case.important_ratio).select(view, case.keep_num), case.keep)


@golden("vit_visionzip")
def test_visionzip(case: Case) -> None:
    view = view_of(
        case.hidden[1:], importance=case.cls_attn[:, 1:].mean(0), keys=case.key_metric[1:], cls_tokens=case.hidden[:1]
    )
    keep = case.dominant + case.contextual
    share = case.contextual / keep
    released = decide(VisionZip(contextual=share, cls=True, order="release"), view, keep)
    check_merged(released, case)
    raster = VisionZip(contextual=share, cls=True).select(view, keep)
    check_merged(raster, case)
    assert raster.indices[1 : case.dominant].tolist() == (case.keep[1:] - 1).tolist()
    assert raster.indices[case.dominant :].tolist() == (case.context_targets - 1).tolist()
    without = VisionZip(contextual=case.contextual / (keep - 1)).select(view, keep - 1)
    assert without.indices.tolist() == raster.indices[1:].tolist()
    assert without.tokens is not None
    torch.testing.assert_close(without.tokens.float(), case.merged[1:].float(), rtol=1e-4, atol=1e-4)


@golden("vit_cdpruner")
def test_cdpruner(case: Case) -> None:
    """The release's relevance (CLIP's space, negated, scaled over the batch), then our kernel and search, per image."""
    cosines = cosine_similarity(case.image_embeds.flatten(0, 1), case.text_embeds).mean(-1)
    weights = unit_range(-cosines).view(case.image_embeds.shape[:2])
    torch.testing.assert_close(weights.double(), case.relevance64, rtol=1e-4, atol=1e-5)
    for features, weight, keep in zip(case.features, weights, case.keep, strict=False):
        same(dpp_map(conditional_kernel(features, weight), case.keep_num), keep)


@golden("vit_zspaprune")
def test_zspaprune(case: Case) -> None:
    view = make_view(case.features, prompt=case.prompt)
    picks = ZSPAPrune(k=case.core_fraction).select(view, case.keep_num)
    assert picks.tolist() == case.order.tolist()
    same(picks, case.keep)
    assert picks[: case.core_num].tolist() == case.order[: case.core_num].tolist()
    assert ZSPAPrune(k=1).select(view, case.core_num).tolist() == case.order[: case.core_num].tolist()
    torch.testing.assert_close(
        relevance(case.features, case.prompt, "mean").double(), case.relevance64, atol=1e-5, rtol=0
    )


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
    view = make_view(pair.new_zeros(height * width, 1), grids=[(1, height, width)])
    view.vision = SimpleNamespace(exchanged=lambda layer: pair)  # type: ignore[assignment]
    return view


@golden("vit_fopru")
def test_fopru(case: Case) -> None:
    view = fopru_view(case)
    emitted, received = view.vision.exchanged(None)
    assert torch.equal(
        significance(emitted, received, "high-variance"), received if "s2" in case.direction else emitted
    )
    scores = significance(emitted, received, "high-variance").double()
    torch.testing.assert_close(scores, case.significance64, rtol=1e-4, atol=0)
    assert case.keep_num == keep_count(len(scores), case.ratio)
    for strategy, keep in (("rank", case.rank_keep), ("row", case.row_keep)):
        method = FoPru(strategy=strategy, ratio=case.ratio)  # type: ignore[arg-type]
        same(method.select(view, case.keep_num), keep)
        assert method.exact is (strategy == "rank")
