"""PruneSID against the released code, ZhengyaoFang/PruneSID @ 4ef17d96b390, through the method's own `select`.

The release's components depend on a random generator: its selection is compared with its groups injected, and the whole
with what the same code makes of exact components.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, Methods, ascending, golden, picked, same
from tests.helpers.views import Tower, decide, make_view


def injected(method: type[Any], loadings: Tensor, **fields: Any) -> Any:
    """Return the method with the given loadings [N, G] instead of its own, whose number must be as many."""

    class Injected(method):  # type: ignore[misc]  # of any copy of the method
        def loadings(self, features: Tensor, count: int) -> Tensor:
            """Return what was given."""
            assert loadings.shape == (len(features), count)
            return loadings.to(features)

    return Injected(**fields)


@golden("vit_prunesid")
def test_prunesid(case: Case, methods: Methods) -> None:
    """The class token is number 0; projected tokens are their numbers."""
    method, own = methods("prunesid"), {"cls": True, "order": "release"}
    for tile, (hidden, attention) in enumerate(zip(case.hidden, case.cls_attn, strict=True)):
        tower = Tower(features=hidden[1:], importance=attention[:, 1:].mean(0), cls_tokens=0 * hidden[:1, :1])
        view = make_view(torch.arange(1, len(hidden))[:, None].to(hidden), vision=tower)
        groups = torch.nn.functional.one_hot(case.groups[tile], case.keep_num // 4)
        for order, keep, made in (
            (case.exact_order, case.exact_keep, method(**own)),
            (case.order, case.keep, injected(method, groups, **own)),
        ):
            answer = decide(made, view, case.keep_num)
            assert answer.tokens is not None
            same(answer.tokens[:, 0].long(), order[tile])
            same(ascending(answer.tokens[:, 0].long()), keep[tile])
        tower.has_cls = False
        read = decide(method(reading="llava", **own), view, case.keep_num)
        assert read.tokens is not None
        same(read.tokens[:, 0].long(), case.exact_order[tile])


@golden("vit_prunesid_qwen")
def test_prunesid_qwen(case: Case, methods: Methods) -> None:
    method = methods("prunesid")
    tower = Tower(features=case.features.roll(1, 1) ** 2)
    tower.has_cls = False
    view = make_view(case.features, vision=tower)
    assert case.keep_num == max(round(len(case.features) * case.nominal / 576), 16)
    for order, keep, given in (
        (case.exact_order, case.exact_keep, method(order="release")),
        (case.order, case.keep, injected(method, case.loadings, order="release")),
    ):
        answer = given.select(view, case.keep_num)
        same(answer.indices, order)
        same(ascending(answer.indices), keep)
        picked(decide(given, view, case.keep_num), keep)
    assert decide(method(), view, case.keep_num).tokens is None
