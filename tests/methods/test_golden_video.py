"""Selections of the methods for video equal those of the released codes, stored as numbers.

Every case becomes a view of one video, and the method's own `select` decides, in float64 and in float32.
"""

from __future__ import annotations

from tests.helpers.golden_cases import Case, Methods, golden, picked
from tests.helpers.views import decide, make_view
from uniprune.pruning.view import View


def video(case: Case) -> View:
    """The case as one grid of tokens, of which `merge` x `merge` patches make one."""
    t, h, w = case.thw.tolist()
    return make_view(case.embeds, grids=[(t, h // case.merge, w // case.merge)])


@golden("llm_evs")
def test_evs(case: Case, methods: Methods) -> None:
    """With the release's counts and, as no case is below a frame, with its number as a budget."""
    view, ratio = video(case), 1 - case.q
    released = methods("evs")(ratio=ratio)
    assert not released.exact
    picked(released.select(view, len(view.tokens)), case.keep)
    assert len(case.keep) == case.k
    picked(decide(methods("evs")(ratio=ratio, counts="exact"), view, case.k), case.keep)
    assert (
        case.keep.div(view.tokens.shape[0] // view.grid[0], rounding_mode="floor")
        .bincount(minlength=view.grid[0])
        .tolist()
        == case.per_frame.tolist()
    )


@golden("llm_vidcom2")
def test_vidcom2(case: Case, methods: Methods) -> None:
    """The authors' counts, and the exact ones of vLLM's port."""
    view, ratio = video(case), case.base_scale
    released = methods("vidcom2")(ratio=ratio, counts="release")
    assert not released.exact
    picked(released.select(view, len(view.tokens)), case.keep)
    assert len(case.keep) == case.k == case.ks.sum()
    ported = methods("vidcom2")(ratio=ratio)
    assert ported.exact
    picked(decide(ported, view, case.vllm_k), case.vllm_keep)
