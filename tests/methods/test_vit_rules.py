"""Decisions of ViT-only methods against direct readings of their rules, on views made by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.views import decide, make_view
from uniprune.methods._fopru import best_rows, significance
from uniprune.methods.cdpruner import CDPruner, conditional_kernel, unit_range
from uniprune.methods.fopru import FoPru
from uniprune.methods.gprune import graph_scores
from uniprune.methods.prumerge import PruMerge
from uniprune.methods.prumerge_plus import PruMergePlus
from uniprune.methods.visionzip import split_tokens
from uniprune.methods.zspaprune import ZSPAPrune, pooled
from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import relevance, top_k
from uniprune.pruning.greedy import farthest_points


def test_graph_scores_by_matrix_power() -> None:
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = x / x.norm(dim=1, keepdim=True)
    similarity = unit @ unit.T
    flow = (similarity / 0.03).masked_fill(similarity < 0.5, -torch.inf).softmax(1)
    want = x.norm(dim=1) @ torch.linalg.matrix_power(flow, 5) / (similarity >= 0.5).sum(1)
    torch.testing.assert_close(graph_scores(x, 0.5, 0.03, 5), want)


def test_graph_scores_of_isolated_and_empty_tokens() -> None:
    x = torch.tensor([[3.0, 0, 0], [0, 4, 0], [0, 0, 0]])
    assert graph_scores(x, 0.5, 0.03, 5)[:2].tolist() == pytest.approx([3, 4])
    assert bool(graph_scores(x, 0.5, 0.03, 5).isfinite().all())


def test_relevance_of_equal_tokens_is_not_divided_by_zero() -> None:
    assert unit_range(torch.full((4,), 0.3)).tolist() == [1.0] * 4
    low_high = unit_range(torch.tensor([[-1.0, 0.0, 3.0], [2.0, 4.0, 6.0]]))  # every prompt has a scale of its own
    assert low_high.tolist() == [pytest.approx([2.5e-7, 0.25, 1.0]), pytest.approx([2.5e-7, 0.5, 1.0])]
    weights = torch.tensor([1.0, 0.5])
    assert conditional_kernel(torch.eye(2), weights).tolist() == [[1, 0], [0, 0.25]]


def test_inverted_relevance_starts_at_the_least_similar_token() -> None:
    generator = torch.Generator().manual_seed(0)
    view = make_view(torch.randn(30, 8, generator=generator), prompt=torch.randn(3, 8, generator=generator))
    cosines = torch.nn.functional.cosine_similarity(view.tokens[:, None], view.prompt[None], dim=-1).mean(1)
    assert CDPruner().select(view, 4)[0] == cosines.argmax()
    assert CDPruner(invert=True).select(view, 4)[0] == cosines.argmin()


@pytest.mark.parametrize("method", [PruMerge(neighbours=3), PruMergePlus(neighbours=3)], ids=repr)
def test_a_token_weighs_as_much_as_its_patches(method: PreLLM) -> None:
    """A token of four patches has four times the mean attention of its patches, which is what is merged."""
    generator = torch.Generator().manual_seed(0)
    tokens, keys = torch.randn(20, 4, generator=generator), torch.randn(20, 6, generator=generator)
    scores = torch.rand(20, generator=generator)
    merged = []
    for patches, values in ((4, scores), (1, 4 * scores)):
        view = make_view(tokens)
        view.vision = Scores(values, patches=patches, keys=keys, features=tokens)  # type: ignore[assignment]
        answer: Any = method.select(view, 6)
        merged.append(answer.tokens)
    assert torch.equal(*merged)
    assert not torch.allclose(merged[0], tokens[answer.indices])


def test_prompt_pooling() -> None:
    tokens, prompt = torch.eye(3), torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 2.0, 0]])
    assert relevance(tokens, pooled(prompt, "mean"), torch.amax).tolist() == pytest.approx([2 / 8**0.5, 2 / 8**0.5, 0])
    assert relevance(tokens, pooled(prompt, "max"), torch.amax).tolist() == pytest.approx([1 / 5**0.5, 2 / 5**0.5, 0])
    assert relevance(tokens, pooled(prompt, "none"), torch.amax).tolist() == [1, 1, 0]


def test_zspaprune_between_its_extremes() -> None:
    generator = torch.Generator().manual_seed(3)
    view = make_view(torch.randn(50, 8, generator=generator), prompt=torch.randn(4, 8, generator=generator))
    scores = relevance(view.tokens, pooled(view.prompt, "mean"), torch.amax)
    distance = 1 - torch.nn.functional.cosine_similarity(view.tokens[None], view.tokens[:, None], dim=-1)
    assert ZSPAPrune(k=1).select(view, 9).tolist() == top_k(scores, 9).tolist()
    assert ZSPAPrune(k=0).select(view, 9).tolist() == farthest_points(distance, 9).tolist()
    assert ZSPAPrune(k=1e-9).select(view, 9)[0] == scores.argmax()


def attention(outliers: int, total: int = 100) -> Tensor:
    """`outliers` tokens far above an even background, the later the stronger, at every seventh place."""
    scores = torch.linspace(0.1, 0.2, total)
    scores[torch.arange(outliers) * 7 + 3] = torch.linspace(1, 2, outliers)
    return scores


def test_spaced_anchors() -> None:
    """Outliers first; then evenly spread over the others, down to the bottom of the image."""
    picks = PruMergePlus().anchors(attention(4), 24).tolist()
    assert picks[:4] == [24, 17, 10, 3]
    assert picks[4:] == sorted(picks[4:])
    gaps = torch.tensor(picks[4:]).diff()
    assert len(set(picks)) == 24
    assert (int(gaps.min()), int(gaps.max())) == (4, 6)
    assert picks[4] <= 5
    assert picks[-1] >= 94
    assert PruMergePlus().anchors(attention(4), 2).tolist() == [24, 17]
    assert sorted(PruMergePlus().anchors(torch.ones(10), 10).tolist()) == list(range(10))


def test_released_anchors_stop_before_the_last_token() -> None:
    """4 outliers of 100: every 25 // 3 = 8th token; no outlier at all still keeps something."""
    assert PruMergePlus(adaptive=True).anchors(attention(4), 1).tolist() == [24, 17, 10, 3, 0, 8, 16, *range(32, 99, 8)]
    assert PruMergePlus(adaptive=True).anchors(torch.ones(100), 1).tolist() == [0, 33, 66]
    assert PruMergePlus(adaptive=True).anchors(torch.tensor([1.0, 2.0]), 1).tolist() == [1, 0]


def test_split_tokens() -> None:
    best, anchors, others = split_tokens(torch.tensor([5.0, 1, 1, 9, 1, 1, 1, 1]), 2, 2)
    assert (best.tolist(), anchors.tolist(), others.tolist()) == ([0, 3], [1, 5], [2, 4, 6, 7])
    best, anchors, others = split_tokens(torch.ones(4), 3, 1)
    assert (best.tolist(), anchors.tolist(), others.tolist()) == ([0, 1, 2], [3], [])
    assert [len(part) for part in split_tokens(torch.ones(4), 3, 0)] == [3, 0, 1]


def test_rows() -> None:
    """Rows of grids of different widths compete by their means."""
    scores = torch.tensor([1.0, 2, 3, 9, 0, 0, 4, 4, 5, 4.5])
    for ratio, kept in ((0.01, [8, 9]), (0.5, [8, 9, 6, 7]), (0.7, [8, 9, 6, 7, 3, 4, 5])):
        assert best_rows(scores, [(1, 2, 3), (1, 2, 2)], ratio).tolist() == kept


def test_significance_varies_most_and_ties_go_to_what_is_received() -> None:
    flat, steep = torch.tensor([1.0, 1, 1]), torch.tensor([0.0, 1, 2])
    several = torch.stack([torch.stack([steep, flat]), torch.stack([flat, steep])])
    assert significance(several, "high-variance").tolist() == [steep.tolist()] * 2
    assert significance(several, "low-variance").tolist() == [flat.tolist()] * 2
    for choice in ("high-variance", "low-variance"):
        assert significance(torch.stack([flat, flat + 1]), choice).tolist() == [2, 2, 2]  # type: ignore[arg-type]


def test_fopru_without_reordering_hands_tokens_over_by_significance() -> None:
    tokens = torch.arange(6.0)[:, None]
    scores = torch.tensor([0.1, 0.5, 0.2, 0.9, 0.3, 0.4])
    view = make_view(tokens)
    view.vision = Scores(torch.stack((scores * 0, scores)))  # type: ignore[assignment]
    answer = decide(FoPru(order="release"), view, 3)
    assert answer.indices.tolist() == [1, 3, 5]
    assert answer.tokens is not None
    assert answer.tokens.flatten().tolist() == [3, 1, 5]
    assert FoPru(significance="low-variance").select(view, 3).tolist() == [0, 1, 2]  # all emit nothing


class Scores:
    """Vision quantities of a view without a model, whose projector does nothing."""

    def __init__(self, scores: Tensor, patches: int = 1, **given: Tensor) -> None:
        self.scores, self.patches, self.given = scores, patches, given

    def exchanged(self, layer: int | None = None) -> Tensor:
        return self.scores

    def importance(self, layer: int | None = None, joint: bool = False) -> Tensor:
        return self.scores

    def keys(self, layer: int | None = None, head_mean: bool = False) -> Tensor:
        return self.given["keys"]

    def features(self) -> Tensor:
        return self.given["features"]

    def project(self, features: Tensor) -> Tensor:
        return features
