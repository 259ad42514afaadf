"""Findings about releases of methods before the language model (docs/releases.md).

A release's rule is written out here, and compared with the method or with the paper's words.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.golden_cases import Methods
from tests.helpers.views import Tower, decide, make_view
from tests.methods.test_golden_vit import view_of


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clustered(count: int, width: int, seed: int = 0) -> Tensor:
    """Return tokens around eight centres, as images have them."""
    return drawn(8, width, seed=seed).repeat(count // 8, 1) + 0.5 * drawn(count, width, seed=seed + 1)


def same_picks(one: Tensor, other: Tensor) -> float:
    """Return the share of the first picks that are among the second."""
    return float(torch.isin(one, other).float().mean())


def farthest(distance: Tensor, keep: int) -> list[int]:
    """Return DivPrune's picks as released: a token that was picked is not excluded."""
    picks = [int(distance.kthvalue(2, dim=0).values.argmax())]
    while len(picks) < keep:
        picks.append(int(distance[picks].amin(0).argmax()))
    return picks


def cosine_distance(tokens: Tensor) -> Tensor:
    """Return distances in the dtype of the tokens."""
    units = tokens / tokens.norm(dim=-1, keepdim=True)
    return 1 - units @ units.T


def test_random_tokens_reach_the_model_shuffled(methods: Methods) -> None:
    tokens = torch.arange(40.0)[:, None]
    kept = {order: decide(methods("random-pre")(order=order), make_view(tokens), 12) for order in ("raster", "release")}
    assert kept["raster"].indices.tolist() == kept["release"].indices.tolist()
    shuffled = kept["release"].tokens
    assert shuffled is not None
    assert shuffled[:, 0].tolist() != kept["raster"].indices.tolist()
    assert sorted(shuffled[:, 0].tolist()) == kept["raster"].indices.tolist()


def test_divprune_picks_duplicates_again(methods: Methods) -> None:
    tokens = drawn(32, 16).repeat(2, 1)
    released = farthest(cosine_distance(tokens.double()).clamp(min=0), 48)
    assert len(set(released)) == 32
    assert len(set(methods("divprune")().select(make_view(tokens), 48).tolist())) == 48


def test_divprune_counts_newlines_as_tokens(methods: Methods) -> None:
    """All are one vector, so that all but one are duplicates."""
    newline = drawn(1, 64, seed=5).expand(24, -1)
    tokens = torch.cat((clustered(576, 64), newline))
    assert sum(pick >= 576 for pick in farthest(cosine_distance(tokens), 64)) == 1
    assert (methods("divprune")().select(make_view(tokens), 64) >= 576).sum() == 1


def test_divprune_in_half_precision_picks_other_tokens(methods: Methods) -> None:
    shares = []
    for seed in range(0, 6, 2):
        tokens = clustered(576, 256, seed=seed)
        half = torch.tensor(farthest(cosine_distance(tokens.bfloat16()).float(), 64))
        shares.append(same_picks(half, methods("divprune")().select(make_view(tokens), 64)))
    assert max(shares) < 0.8, shares


def test_gprune_in_half_precision_counts_too_few_neighbours(methods: Methods) -> None:
    """A neighbour at the threshold has the share exp(-0.5 / 0.03) at most, the smallest number of float16."""
    tokens = torch.cat((torch.eye(6)[0].repeat(4, 1), torch.eye(6)[:1] * 0.51 + torch.eye(6)[1:] * 0.86))
    cosines = F.cosine_similarity(tokens[:, None], tokens[None], dim=-1)
    logits = torch.where(cosines >= 0.5, cosines / 0.03, -5000.0)
    counts = [(logits.to(dtype).softmax(-1) > 0).sum(-1) for dtype in (torch.float32, torch.float16)]
    assert counts[0].tolist() == [9] * 4 + [5] * 5
    assert counts[1].tolist() != counts[0].tolist()
    information = logits.double().softmax(-1).matrix_power(5).sum(0)
    picks = [set((information / count).topk(4).indices.tolist()) for count in counts]
    assert picks[1] == {0, 1, 2, 3}
    for found in (picks[0], set(methods("gprune")().select(make_view(tokens), 4).tolist())):
        assert found < {4, 5, 6, 7, 8}


def test_prumerge_adds_up_instead_of_averaging(methods: Methods) -> None:
    """Of equal tokens every weighted average would be that token."""
    view = view_of(
        torch.ones(60, 3),
        importance=(torch.full((60,), 1 / 60), {"layer": -1, "joint": True}),
        keys=(drawn(60, 4), {"layer": -1}),
    )
    merged = methods("prumerge")().select(view, 11).tokens[:, 0] / 2  # the projector doubles
    torch.testing.assert_close(merged, torch.tensor([1 + 32 / 60] * 10 + [50 / 60]))


def test_prumerge_takes_all_heads_for_one(methods: Methods) -> None:
    joint, mean = drawn(60, seed=1).softmax(0), drawn(60, seed=2).softmax(0)
    views = [
        view_of(drawn(60, 3), importance=(values, {"layer": -1, "joint": flag}), keys=(drawn(60, 4), {"layer": -1}))
        for values, flag in ((joint, True), (mean, False))
    ]
    released, averaged = (
        methods("prumerge")(heads=heads).select(view, 11).indices[:10]
        for heads, view in zip(("joint", "mean"), views, strict=True)
    )
    assert methods("prumerge")().heads == "joint"
    assert released.tolist() == joint.argsort(descending=True)[:10].tolist()
    assert averaged.tolist() == mean.argsort(descending=True)[:10].tolist()


def test_the_count_of_prumerge_plus_jumps(methods: Methods) -> None:
    """Spacing is 1 / (3 share of outliers), rounded down twice: a few outliers more, and twice as many tokens stay."""
    counts = {}
    for outliers in (31, 48, 49, 64, 65, 96, 97):
        attention = torch.cat((torch.full((576 - outliers,), 1.0), torch.full((outliers,), 9.0))) / 576
        attention[: 576 - outliers] += torch.arange(576 - outliers) * 1e-6
        counts[outliers] = len(methods("prumerge+")(adaptive=True).anchors(attention, 1))
    assert [round(count / 576, 2) for count in counts.values()] == [0.21, 0.31, 0.39, 0.41, 0.56, 0.58, 1.0]


def thinned(features: Tensor, ranked: Tensor, keep: int) -> Tensor:
    """Return VisPruner's diverse tokens as released: its index of rows is half as long as the list, rounded down."""
    units = features / features.norm(dim=-1, keepdim=True)
    while len(ranked) > keep:
        step, even, odd = min(8, len(ranked) - keep), ranked[::2], ranked[1::2]
        nearest = (units[even] @ units[odd].T).amax(1)
        rows = torch.zeros(len(ranked) // 2 - step, dtype=torch.long)
        ranked = torch.cat((even[None][rows, nearest.argsort(descending=True)[step:]], odd))
    return ranked


def test_an_odd_number_of_candidates_ends_vispruner(methods: Methods) -> None:
    """For 64 tokens the release's rounds, written out, choose as the method does; for 63 they end with an error."""
    features, attention = clustered(576, 64).double(), drawn(576, seed=9).double().softmax(0)
    view, ranked = view_of(features, importance=attention), attention.argsort(descending=True)
    kept = methods("vispruner")().select(view, 64)
    assert kept.tolist() == [*ranked[:32].tolist(), *thinned(features, ranked[32:], 32).tolist()]
    with pytest.raises(IndexError, match=r"shape mismatch.*\[264\], \[265\]"):
        thinned(features, ranked[31:], 32)
    assert len(set(methods("vispruner")().select(view, 63).tolist())) == 63


def test_vispruner_is_chaotic(methods: Methods) -> None:
    """The release's rounds, by precision; and noise of one part in a million, in float64 as the method has it."""
    rounded, noisy = [], []
    for seed in range(3):
        features, attention = clustered(576, 64, seed=seed).double(), drawn(576, seed=seed + 9).softmax(0)
        ranked = attention.argsort(descending=True)[32:]
        exact, half = thinned(features, ranked, 32), thinned(features.half(), ranked, 32)
        other = features * (1 + 1e-6 * drawn(576, 64, seed=seed + 20))
        one, two = (methods("vispruner")().select(view_of(x, importance=attention), 64)[32:] for x in (features, other))
        rounded.append(same_picks(exact, half))
        noisy.append(same_picks(one, two))
    assert max(rounded) < 0.5, rounded
    assert min(noisy) < 0.9, noisy


def test_contextual_tokens_of_visionzip_are_twice_as_long(methods: Methods) -> None:
    """The mean of a cluster is added to its anchor. Of equal tokens an average would be that token."""
    view = view_of(torch.ones(60, 3), importance=torch.arange(60.0), keys=(drawn(60, 4), {"head_mean": True}))
    tokens = methods("visionzip")().select(view, 32).tokens[:, 0] / 2  # the projector doubles
    assert tokens[:27].tolist() == [1.0] * 27
    assert set(tokens[27:].tolist()) <= {1.0, 2.0}
    assert (tokens[27:] == 2).any()


def test_cdpruner_repeats_itself_beyond_the_rank_of_its_kernel(methods: Methods) -> None:
    """Without a bound, gains below zero have no square root, and the largest of numbers with NaN is NaN."""
    tokens, prompt = drawn(64, 8), drawn(3, 8, seed=1)
    units = F.normalize(tokens, dim=-1)
    relevance = F.cosine_similarity(tokens[:, None], prompt[None], dim=-1).mean(-1)
    weights = (relevance - relevance.min() + 1e-6) / (relevance.max() - relevance.min())
    kernel = weights[:, None] * (units @ units.T) * weights
    gains, parts, picks = kernel.diagonal().clone(), list[Tensor](), list[int]()
    for _ in range(32):
        picks.append(int(gains.argmax()))
        known = torch.stack(parts) if parts else torch.zeros(1, 64)
        parts.append((kernel[picks[-1]] - known[:, picks[-1]] @ known) / gains[picks[-1]].sqrt())
        gains -= parts[-1] ** 2
        gains[picks[-1]] = -torch.inf
    assert len(set(picks)) < 24
    assert len(set(methods("cdpruner")().select(make_view(tokens, prompt=prompt), 32).tolist())) == 32


def test_scope_gives_up_on_a_token_of_zeros(methods: Methods) -> None:
    """Its similarities are NaN, then all scores are, and the first tokens are picked; here nothing is similar to it."""
    features, attention = drawn(30, 8), drawn(30, seed=1).softmax(0)
    features[7] = 0
    units = features / features.norm(dim=-1, keepdim=True)
    similarity, covered, picks = units @ units.T, torch.zeros(30), list[int]()
    for _ in range(6):
        scores = (similarity - covered[:, None]).clamp(min=0).sum(0) * attention
        scores[picks] = -torch.inf
        picks.append(int(scores.argmax()))
        covered = covered.maximum(similarity[:, picks[-1]])
    assert picks == [0, 1, 2, 3, 4, 5]
    kept = methods("scope")().select(view_of(features, importance=attention), 6).tolist()
    assert 7 not in kept
    assert kept != picks


def test_the_first_token_of_scope_is_not_the_most_salient(methods: Methods) -> None:
    features = torch.tensor([[1.0, 0.1], [1, 0], [1, -0.1], [-1, 0.1]])
    attention = torch.tensor([0.2, 0.2, 0.2, 0.4])
    assert methods("scope")().select(view_of(features, importance=attention), 1).tolist() == [1]


def test_hardly_any_token_of_hiprune_is_an_anchor(methods: Methods) -> None:
    """Tokens that stay for the middle layer's attention, which has nothing in common with the deep one's."""
    found = {}
    for keep in (24, 64, 128, 192):
        view = make_view(torch.zeros(576, 1), grids=[(1, 24, 24)])
        deep = torch.arange(576.0)
        middle = torch.zeros(576)
        middle[[30, 90, 150, 210]] = torch.tensor([4.0, 3, 2, 1])
        view.vision = Tower()  # type: ignore[assignment]  # all that is read
        view.vision.received = {3 / 8: middle, None: deep}.__getitem__  # type: ignore[method-assign, assignment]
        kept = methods("hiprune")().select(view, keep)
        found[keep] = int((kept < 300).sum())
    assert found == {24: 0, 64: 5, 128: 15, 192: 20}


def test_mmtok_repeats_a_token_if_padding_leaves_too_few(methods: Methods) -> None:
    """The release excludes patches of padding, even below the budget; then all gains are minus infinity."""
    tokens, features, prompt = drawn(30, 8), drawn(30, 8, seed=1), drawn(4, 8, seed=2)
    words = (F.cosine_similarity(prompt[:, None], tokens[None], dim=-1) / 0.02).softmax(-1) / 4
    own = (F.cosine_similarity(features[:, None], features[None], dim=-1) / 0.2).softmax(-1) / 30
    weights, covered, picks = torch.cat((words, 0.5 * own)), torch.zeros(34), list[int]()
    for _ in range(24):
        gains = (weights - covered[:, None]).clamp(min=0).sum(0)
        gains[[*range(20, 30), *picks]] = -torch.inf
        picks.append(int(gains.argmax()))
        covered = covered.maximum(weights[:, picks[-1]])
    assert len(set(picks)) == 20
    view = make_view(tokens, prompt=prompt, vision=Tower(features=features, hidden=features))
    assert len(set(methods("mmtok")().select(view, 24).tolist())) == 24
