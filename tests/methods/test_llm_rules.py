"""Rules inside methods in the language model, by hand and by brute force: quotas, searches, clusters, windows."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from tests.helpers.oracles import layerwise_masked, merged_inputs
from tests.helpers.tiny import FAMILIES, IMAGE, LAYERS, build, inputs, visual
from uniprune.engine import prune
from uniprune.errors import UserError
from uniprune.methods._dart import least_similar, quotas
from uniprune.methods._sparsevlm import recycle, recycled, text_raters
from uniprune.methods._windows import similar_windows
from uniprune.methods.calibration.fitprune import RecipeSearch, Statistics
from uniprune.methods.calibration.vtw import LayerSearch, divergences, earliest
from uniprune.methods.fitprune import FitPrune
from uniprune.methods.mustdrop import MustDrop
from uniprune.methods.sparsevlm import split_budget
from uniprune.methods.vtw import VTW
from uniprune.pruning.budget import tokens_per_layer
from uniprune.pruning.calibration import Calibration
from uniprune.pruning.clustering import density_peaks

family = pytest.mark.parametrize("family", FAMILIES)


# --- DART -------------------------------------------------------------------------------------------------------
def test_dart_quotas() -> None:
    assert quotas(192 - 4, 8) == [24, 24, 24, 24, 23, 23, 23, 23]
    assert [sum(quotas(tokens, 8)) for tokens in (0, 1, 60)] == [0, 1, 60]


def test_dart_takes_duplicates_of_pivots_last() -> None:
    tokens = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [-1, 0], [1, 0]])
    kept = least_similar(tokens, tokens[:1], torch.tensor([0]), [2])
    assert kept.tolist() == [0, 2, 3]
    assert least_similar(tokens, tokens[:1], torch.tensor([0]), [9]).tolist() == [0, 1, 2, 3, 4]


# --- VTW --------------------------------------------------------------------------------------------------------
def test_vtw_layer_follows_from_the_ratio() -> None:
    for num_layers, layers in ((32, (11, 7, 4)), (28, (9, 6, 3))):
        for ratio, layer in zip((0.333, 0.222, 0.111), layers, strict=True):
            counts = tokens_per_layer(576, VTW(ratio=ratio).schedule(num_layers), num_layers)
            assert counts == [576] * layer + [0] * (num_layers - layer)
    assert VTW(ratio=0.001).schedule(4)[0].layer == 1


def test_vtw_search_runs_the_model() -> None:
    """The search finds the layer that masked forwards give."""
    model, samples = build("llava"), [inputs("llava", seed=seed) for seed in range(2)]
    full, withdrawn = [], []
    for x in samples:
        embeds, positions = merged_inputs(model, x)
        visual = x["input_ids"][0] == IMAGE
        full.append(layerwise_masked(model, embeds, positions, {}, 1)[1])
        withdrawn.append(
            torch.stack([layerwise_masked(model, embeds, positions, {k: visual}, 1)[1] for k in (2, 3, 4)], 1)
        )
    for eta in (1e9, 0.5, 0.05, 1e-9):
        search = LayerSearch(eta=eta, first=2)
        seen = [search.observe(model, x) for x in samples]
        want = earliest(divergences(torch.cat(full), torch.cat(withdrawn)), eta, first=2)
        if want is None:
            with pytest.raises(UserError, match=r"no layer from 2 on .* --search eta="):
                search.result(seen)
        else:
            assert search.result(seen).ratio == want / LAYERS
            assert VTW(ratio=float(f"{search.result(seen).ratio:.6g}")).schedule(LAYERS)[0].layer == want


@pytest.mark.parametrize(
    ("search", "fields", "says"),
    [
        (LayerSearch, {"eta": 0.0}, "eta 0.0 must be a finite number above 0"),
        (LayerSearch, {"first": 0}, "first 0 must be a whole number of at least 1 or None"),
        (RecipeSearch, {"flops": 1.5}, r"flops 1.5 is outside \[0, 1\]"),
    ],
)
def test_refused_fields_of_searches(search: type[Calibration], fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        search(**fields)


def test_vtw_search_refuses_what_no_layer_can_be() -> None:
    with pytest.raises(UserError, match=r"first 5 is outside the model's decoder layers 1\.\.4"):
        LayerSearch(first=5).observe(build("llava"), inputs("llava"))


# --- FitPrune ---------------------------------------------------------------------------------------------------
def test_a_recipe_of_ones_own() -> None:
    pruner = FitPrune(recipe=(10, 20, 0, 5), recipe_tokens=100)
    own = (90 + 70 + 70) / 300
    assert tokens_per_layer(100, dataclasses.replace(pruner, ratio=own).schedule(4), 4) == [100, 90, 70, 70]
    counts = tokens_per_layer(100, dataclasses.replace(pruner, ratio=0.5).schedule(4), 4)
    assert sum(counts[1:]) == pytest.approx(150, abs=1.5)


def statistics(samples: int = 3, layers: int = 6, tokens: int = 40) -> Statistics:
    generator = torch.Generator().manual_seed(0)
    cross, own = (torch.rand(samples, layers, tokens, generator=generator) ** 3 for _ in range(2))
    return Statistics(cross, own, width=64, inner=96)


@pytest.mark.parametrize("left", [0.9, 0.6, 0.3])
def test_recipe_search_is_the_mildest_within_budget(left: float) -> None:
    stats = statistics()
    recipe = stats.search(left)

    def flops(counts: list[int]) -> float:
        remaining = [40 - sum(counts[:layer]) for layer in range(len(counts))]
        return sum(map(stats.flops, remaining)) / (6 * stats.flops(40))

    assert flops(recipe) <= left
    assert min(recipe) >= 0
    assert sum(recipe) < 40
    alphas = torch.linspace(0, 1, 101).tolist()
    budget = left * 6 * stats.flops(40)
    mildest = next(alpha for alpha in alphas if stats.deletions(alpha, budget)[1])
    assert abs(flops(recipe) - flops(stats.deletions(mildest, budget)[0])) < 0.1


def test_recipe_deletes_what_both_sums_can_spare() -> None:
    """One layer by hand: 10 % of a sum of 10 is 1, so cross spares tokens 0-2 and own spares 1-3."""
    cross = torch.tensor([[[0.2, 0.3, 0.4, 2.1, 7.0]]])
    own = torch.tensor([[[7.0, 0.4, 0.3, 0.2, 2.1]]])
    stats = Statistics(cross, own, width=8, inner=8)
    assert stats.deletions(0.1, 0.0) == ([2], False)
    assert stats.deletions(0.0, 0.0) == ([0], False)
    with pytest.raises(UserError, match="all of them enter layer 0"):
        stats.search(0.01)


# --- SparseVLM --------------------------------------------------------------------------------------------------
def test_split_budget_always_sums_up() -> None:
    for tokens in (2, 5, 16, 33, 100, 311, 576):
        for keep in range(1, tokens):
            kept, clusters = split_budget(tokens, keep)
            assert kept + clusters == keep
            assert clusters == 0 or clusters == recycled(tokens - kept)[1]
    published = [(576, 309, 300), (309, 204, 200), (204, 113, 110), (576, 82, 66), (82, 32, 30), (32, 18, 17)]
    assert [split_budget(tokens, keep)[0] for tokens, keep, _ in published] == [kept for *_, kept in published]


def test_recycled_tokens_are_means_in_the_slot_of_their_centre() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, scores = torch.randn(60, 8, generator=generator), torch.rand(60, generator=generator)
    answer = recycle(tokens, scores, 20, recycled(40)[1])
    assert answer.tokens is not None
    assert torch.equal(answer.tokens[:20], tokens[answer.indices[:20]])
    pool = scores.argsort(descending=True)[20 : 20 + recycled(40)[0]]
    centres, owner = density_peaks(tokens[pool], 2)
    assert answer.indices[20:].tolist() == pool[centres].tolist()
    for cluster in range(2):
        torch.testing.assert_close(answer.tokens[20 + cluster], tokens[pool[owner == cluster]].mean(0))


def test_clusters_of_two_clouds_and_of_copies() -> None:
    generator = torch.Generator().manual_seed(0)
    near = torch.randn(12, 3, generator=generator) * 0.1
    near[6:] += 5
    _, owner = density_peaks(near, 2)
    assert len(set(owner[:6].tolist())) == len(set(owner[6:].tolist())) == 1
    assert owner[0] != owner[6]
    centres, owner = density_peaks(torch.ones(6, 3), 3)
    assert sorted(centres.tolist()) == [0, 1, 2]
    assert owner[centres].tolist() == [0, 1, 2]
    assert density_peaks(near, 1)[1].tolist() == [0] * 12


@pytest.mark.parametrize("clusters", [2, 9, 30, 64])
def test_equally_dense_tokens_tie(clusters: int) -> None:
    """Corners of a box: all rows of distances hold the same numbers, whose sum in float32 depends on their order."""
    sides = torch.tensor([0.13, 0.37, 0.71, 1.1, 1.9, 2.3]).half().float()  # the corners' mean is exactly 0
    corners = torch.tensor([[i >> side & 1 for side in range(6)] for i in range(64)]) * sides - sides / 2
    centres, _ = density_peaks(corners, clusters)
    far_from_lower = sorted(range(64), key=lambda i: -(i & -i) if i else -64)  # by the shortest side leading to one
    assert centres.tolist() == far_from_lower[:clusters]


def test_text_raters_are_all_when_none_stands_out() -> None:
    assert text_raters(torch.ones(3, 2), torch.ones(4, 2)).tolist() == [0, 1, 2, 3]
    assert text_raters(torch.ones(3, 2), torch.tensor([[1.0, 1], [0, 0]])).tolist() == [0]


# --- MustDrop ---------------------------------------------------------------------------------------------------
def test_windows_of_several_grids_leave_the_rest_alone() -> None:
    grids = [(1, 4, 4), (2, 3, 3)]
    hidden = torch.ones(16 + 18, 2)
    windows = similar_windows(hidden, grids, 3, 0.9)
    assert sorted(windows[:, 0].tolist()) == [0, 16, 25]
    assert sorted(windows[:, 4].tolist()) == [5, 20, 29]
    assert similar_windows(torch.randn(34, 64), grids, 3, 0.9).shape == (0, 9)
    assert similar_windows(hidden[:4], [(1, 2, 2)], 3, 0.9).shape == (0, 9)


@family
def test_mustdrop_merges_keeps_key_tokens_and_forgets(family: str) -> None:
    model, x = build(family), inputs(family)
    method = MustDrop(ratio=0.5, similarity=-1.0, key_share=0.3, global_threshold=0.9, individual_threshold=1.0)
    with prune(model, method) as session, torch.no_grad():
        out = model(**x, use_cache=True)
    report = session.reports[-1].rows[0]
    merged = report.initial - 8 * sum((height // 3) * (width // 3) for _, height, width in report.grids[0])
    keys = -(-3 * merged // 10)
    assert report.entering[0] == merged
    assert report.entering[1:] == [keys] * (LAYERS - 1)
    rest = x["input_ids"].shape[1] - int(visual(x).sum())
    assert [out.past_key_values.get_seq_length(n) for n in range(LAYERS)] == [rest + keys] * LAYERS
    with prune(model, dataclasses.replace(method, evict=False)), torch.no_grad():
        out = model(**x, use_cache=True)
    assert out.past_key_values.get_seq_length(0) == rest + merged
