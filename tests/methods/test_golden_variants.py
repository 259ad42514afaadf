"""Variants that products ship choose what their rules choose, stored as numbers, through their own `select`."""

from __future__ import annotations

import torch

from tests.helpers.golden_cases import Case, Methods, golden, picked, same
from tests.helpers.views import decide, make_view
from uniprune.pruning.budget import keep_count


@golden("llm_dart_embeddings")
def test_dart_embeddings(case: Case, methods: Methods) -> None:
    """A prompt of several spans is one view; the exact count of a single span is NVIDIA's."""
    places = case.is_visual.nonzero()[:, 0]
    sizes = case.spans.diff(dim=1)[:, 0].tolist() if case.pruned else [len(places)]
    view = make_view(case.embeds[places], grids=[(1, 1, size) for size in sizes], text=case.embeds[~case.is_visual])
    fields = {"visual_pivots": case.pivot_visual, "text_pivots": case.pivot_text, "ratio": 1 - case.reduction}
    released = methods("dart-embeddings")(counts="release", least=case.min_visual, scope="prompt", **fields)
    assert not released.exact
    answer = released.select(view, len(places)).sort().values
    same(places[answer], case.keep_abs)
    if case.pruned:
        same(torch.stack([((places[answer] >= a) & (places[answer] < b)).sum() for a, b in case.spans]), case.targets)
        same(case.order_abs.sort().values, case.keep_abs)
    if len(sizes) == 1 and case.pruned:
        picked(places[decide(methods("dart-embeddings")(**fields), view, len(answer)).indices], case.keep_abs)


@golden("llm_cdpruner_openvino")
def test_cdpruner_in_blocks(case: Case, methods: Methods) -> None:
    """Every picture or frame is one view, as `scope=grid` makes them."""
    kernel = {"ops": "blend", "loop": "exponential"}[case.path]
    fields = {"kernel": kernel, "weight": case.relevance_weight, "invert": case.negative, "split": case.split}
    ratio, kept = 1 - case.percent / 100, []
    released = methods("cdpruner-blocks")(ratio=ratio, counts="even", scope="grid", **fields)
    assert not released.exact
    for tokens in case.visual.split(case.frame_tokens.tolist()):
        view = make_view(tokens, prompt=case.text)
        answer = released.select(view, keep_count(len(tokens), ratio))
        picked(decide(methods("cdpruner-blocks")(ratio=ratio, **fields), view, len(answer)), answer.sort().values)
        kept.append(answer)
    same(torch.cat(kept), case.pick_order)
    starts = case.frame_tokens.cumsum(0) - case.frame_tokens
    picked(torch.cat([own + start for own, start in zip(kept, starts, strict=True)]), case.keep)
    assert len(case.keep) == case.k
