"""Merging methods for video equal the released codes, through their own `select`, stored as numbers.

The released reading (`counts=release`) decides. What the release draws at random, to break ties of densities, is drawn
again as stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, Methods, golden
from tests.helpers.views import Tower, decide, make_view
from uniprune.pruning.base import Selection
from uniprune.pruning.view import View


def view_of(case: Case) -> View:
    """The case as one video, every frame a row."""
    vision = Tower(received=case.attention.flatten())
    return make_view(case.features.flatten(0, 1), grids=[(case.T, 1, case.N)], vision=vision)


@contextmanager
def stored_draws(case: Case) -> Iterator[None]:
    """Make `torch.rand` return the stored numbers, call after call, and require that all were drawn."""
    left = list(case.noise.split(case.noise_lengths.tolist()))

    def rand(count: int, **_: Any) -> Tensor:
        assert len(left[0]) == count
        return left.pop(0)

    with patch.object(torch, "rand", rand):
        yield
    assert not left


def decided(case: Case, method: Any, nominal: int) -> Selection:
    """The method's answer in the released reading, ascending; the other one meets the nominal budget."""
    released = method(ratio=case.retention_ratio, counts="release")
    assert not released.exact
    with stored_draws(case):
        answer = released.select(view_of(case), case.T * case.N)
    assert len(decide(method(ratio=case.retention_ratio), view_of(case), nominal).indices) == nominal
    order = answer.indices.argsort()
    return Selection(answer.indices[order], answer.tokens[order])


@golden("llm_fastvid")
def test_fastvid(case: Case, methods: Methods) -> None:
    def method(**fields: Any) -> Any:
        return methods("fastvid")(
            segments=case.DySeg_c,
            threshold=case.DySeg_tau,
            inner_threshold=case.DySeg_ignore,
            context=case.STPrune_d,
            period=case.DTM_p,
            least=case.DTM_beta,
            **fields,
        )

    answer = decided(case, method, case.nominal)
    assert answer.indices.tolist() == case.indices.tolist()
    assert len(answer.indices) == case.k
    torch.testing.assert_close(answer.tokens, case.tokens, rtol=1e-5, atol=1e-5)


@golden("llm_flashvid")
def test_flashvid(case: Case, methods: Methods) -> None:
    def method(**fields: Any) -> Any:
        parted = {"segment_threshold": case.segment_threshold, "segments": case.min_segment_num}
        return methods("flashvid")(
            alpha=case.alpha,
            threshold=case.temporal_threshold,
            expansion=case.expansion,
            **parted if case.do_segment else {"segment_threshold": -1.0, "segments": 1},
            **fields,
        )

    answer = decided(case, method, case.nominal)
    assert len(case.indices) == case.k
    assert answer.indices.tolist() == case.indices.unique().tolist()
    for place, token in zip(answer.indices, answer.tokens, strict=True):
        stored = case.tokens[case.indices == place]
        if len(stored) > 1:  # once as picked, which is written over
            own = case.features.flatten(0, 1)[place]
            stored = stored[(stored != own).any(1)]
        torch.testing.assert_close(token[None], stored, rtol=1e-5, atol=1e-5)
