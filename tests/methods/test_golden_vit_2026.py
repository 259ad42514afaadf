"""Newer ViT-only methods against the released code of their papers, through the methods' own `select`.

Producers (repository @ commit): SCOPE kinredon/SCOPE @ 6bf73069e0d6. Several tiles of a case are several views.
"""

from __future__ import annotations

from tests.helpers.golden_cases import Case, Methods, ascending, golden, picked, same
from tests.helpers.views import decide
from tests.methods.test_golden_vit import view_of


@golden("vit_scope")
def test_scope(case: Case, methods: Methods) -> None:
    method = methods("scope")(alpha=case.alpha, combine={"multi": "product", "add": "sum"}[case.combined])
    for features, attention, order, keep in zip(case.features, case.cls_attn, case.order, case.keep, strict=True):
        view = view_of(features, importance=attention.mean(0), cls=attention)
        view.tokens = view.tokens.roll(1, 1) ** 2  # what the projector makes of features is not compared
        same(method.select(view, case.keep_num), order)
        picked(decide(method, view, case.keep_num), keep)
        same(ascending(order), keep)
