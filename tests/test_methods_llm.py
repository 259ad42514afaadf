"""Methods inside the language model, end to end on every family: budgets, equivalence with masking, known defects."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from methods._fitprune_search import Statistics
from methods._mustdrop import similar_windows
from methods._sparsevlm import recycle, recycled, split_budget, text_raters
from methods._vtw import LayerSearch, find_k
from methods.dart import DART, least_similar, quotas
from methods.fastv import FastV
from methods.fitprune import FitPrune
from methods.mustdrop import MustDrop
from methods.pyramiddrop import PyramidDrop
from methods.random_intra import RandomIntra
from methods.sparsevlm import SparseVLM
from methods.sparsevlm_v1 import SparseVLMv1
from methods.sparsevlm_v2 import SparseVLMv2
from methods.vtw import VTW
from tests.oracles import dropped_by, layerwise_masked, merged_inputs
from tests.pruners import generate
from tests.tiny import FAMILIES, IMAGE, LAYERS, build, fresh_model, inputs, row, visual
from uniprune.budget import layer_average, tokens_per_layer, with_average
from uniprune.choice import MethodChoice
from uniprune.clustering import density_peaks
from uniprune.engine import Sample, prune
from uniprune.errors import UserError
from uniprune.pruner import Pruner
from uniprune.registry import METHODS
from uniprune.schedules import MultiStage, between

STEPS = 6
RATIO = 0.4
SCHEDULED: list[type[MultiStage]] = [PyramidDrop, FitPrune, SparseVLM, SparseVLMv2]
DROPPING = [
    DART(ratio=RATIO),
    VTW(ratio=RATIO),
    PyramidDrop(ratio=RATIO),
    FitPrune(ratio=RATIO),
    SparseVLMv2(ratio=RATIO),
]
MERGING = [
    SparseVLM(ratio=RATIO),
    SparseVLMv1(ratio=RATIO, scale=1.0),
    MustDrop(ratio=RATIO, global_threshold=0.002, individual_threshold=0.003),
]
METHOD_NAMES = ["dart", "vtw", "pyramiddrop", "fitprune", "sparsevlm", "sparsevlm-v1", "sparsevlm-v2", "mustdrop"]
ADAPTIVE = {"sparsevlm-v1", "mustdrop"}
family = pytest.mark.parametrize("family", FAMILIES)
every = pytest.mark.parametrize("pruner", DROPPING + MERGING, ids=lambda p: type(p).__name__)


# --- end to end -------------------------------------------------------------------------------------------------
@family
@pytest.mark.parametrize("pruner", DROPPING, ids=lambda p: type(p).__name__)
def test_dropping_equals_masking(family: str, pruner: Pruner) -> None:
    """Order, positions, cache and decode steps are right: the same logits as masking the dropped tokens in place."""
    model, x = build(family), inputs(family, (2,))
    with prune(model, pruner) as session:
        tokens, logits = generate(model, x, STEPS)
    dropped = {k: columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
    want_tokens, want, _ = layerwise_masked(model, *merged_inputs(model, x), dropped, STEPS)
    assert tokens[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=2e-4, rtol=1e-3)


@family
@every
def test_every_row_of_a_batch_is_what_it_is_alone(family: str, pruner: Pruner) -> None:
    images, samples = (1, 2, 0), (Sample("a"), Sample("b"), Sample("c"))
    model, x = build(family), inputs(family, images)
    with prune(model, pruner) as session:
        session.samples = samples
        tokens, logits = generate(model, x, STEPS)
        reports = session.reports[-1].rows
        for b, sample in enumerate(samples):
            session.samples = (sample,)
            alone_tokens, alone = generate(model, row(family, x, b, images), STEPS)
            assert session.reports[-1].rows[0].entering == reports[b].entering
            assert alone_tokens[0].tolist() == tokens[b].tolist()
            torch.testing.assert_close(alone[0], logits[b], atol=2e-4, rtol=1e-3)


@family
@every
def test_counts_and_caches_are_as_scheduled(family: str, pruner: Pruner) -> None:
    """Every layer holds the tokens that entered it, once; text around and between images stays."""
    model, x = build(family), inputs(family, (3,))
    with prune(model, pruner) as session, torch.no_grad():
        out = model(**x, use_cache=True)
    report = session.reports[-1].rows[0]
    rest = x["input_ids"].shape[1] - int(visual(x).sum())
    sizes = [sum(t * h * w for t, h, w in grids) for grids in report.grids]
    stages = pruner.schedule(LAYERS)
    if all(stage.pruner.exact for stage in stages):
        wanted = [tokens_per_layer(size, stages, LAYERS) for size in sizes]
        assert report.entering == [sum(column) for column in zip(*wanted, strict=True)]
    held = [out.past_key_values.get_seq_length(layer) for layer in range(LAYERS)]
    final, first = report.entering[-1], pruner.evict_from(LAYERS)
    evicted = [final if first is not None and layer >= first else n for layer, n in enumerate(report.entering)]
    withdrawn = [report.markers[0] - count for count in report.markers]
    assert held == [rest + n - lost for n, lost in zip(evicted, withdrawn, strict=True)]
    assert [lost > 0 for lost in withdrawn] == [not n and bool(report.markers[0]) for n in report.entering]
    assert report.entering == sorted(report.entering, reverse=True)
    assert report.entering[-1] < report.initial
    for stage in report.stages:
        for cells in stage.kept:
            assert cells.tolist() == sorted(set(cells.tolist()))


@family
@every
@pytest.mark.parametrize("scope", ["image", "prompt"])
def test_scopes_beams_and_bfloat16(family: str, pruner: Pruner, scope: str) -> None:
    pruner = dataclasses.replace(pruner, scope=scope)  # type: ignore[arg-type]
    x = inputs(family, (2,))
    model = bfloat16(family) if scope == "prompt" else build(family)
    x["pixel_values"] = x["pixel_values"].to(model.dtype)
    with prune(model, pruner) as session:
        generate(model, x, 3, num_beams=2)
    assert session.reports[-1].pruned


def bfloat16(family: str, models: dict[str, Any] = {}) -> Any:  # noqa: B006
    if family not in models:
        models[family] = fresh_model(family).to(torch.bfloat16)
    return models[family]


@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize("ratio", [0.01, 0.5, 0.95])
def test_extreme_ratios_run_by_name(name: str, ratio: float) -> None:
    pruner = MethodChoice(name, ratio=ratio).pruner()
    with prune(build("qwen2_5_vl"), pruner) as session:
        generate(build("qwen2_5_vl"), inputs("qwen2_5_vl", (1, 2)), 3)
    stages = pruner.schedule(LAYERS)
    for report in session.reports[-1].rows:
        sizes = [sum(t * h * w for t, h, w in grids) for grids in report.grids]
        wanted = [sum(column) for column in zip(*(tokens_per_layer(s, stages, LAYERS) for s in sizes), strict=True)]
        assert name in ADAPTIVE or report.entering == wanted


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_ratio_one_leaves_the_model_alone(name: str) -> None:
    model, x = build("internvl"), inputs("internvl")
    plain = generate(model, x, 3)
    with prune(model, METHODS.get(name)()) as session:
        again = generate(model, x, 3)
    assert torch.equal(plain[1], again[1])
    assert not session.reports[-1].pruned


@pytest.mark.parametrize(
    "pruner", [FastV(ratio=0.25), RandomIntra(ratio=0.25), *DROPPING], ids=lambda p: type(p).__name__
)
def test_no_layer_caches_a_token_twice(pruner: Pruner) -> None:
    """Recomputing attention of layer K - 1 must not append to its cache, in prefill or in decode steps."""
    model, x = build("llava"), inputs("llava")
    with prune(model, pruner) as session:
        out = model.generate(**x, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True)
    text = int((x["input_ids"] != IMAGE).sum()) + STEPS - 1
    entering = session.reports[0].rows[0].entering
    assert [out.past_key_values.get_seq_length(n) for n in range(LAYERS)] == [text + n for n in entering]


# --- budgets ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", SCHEDULED)
@pytest.mark.parametrize("num_layers", [2, 5, 6, 24, 28, 32, 40])
@pytest.mark.parametrize("ratio", [0.01, 1 / 9, 1 / 3, 0.9])
def test_the_ratio_is_the_average_from_the_first_pruning_layer_on(
    method: type[MultiStage], num_layers: int, ratio: float
) -> None:
    pruner = method(ratio=ratio)
    stages, first = pruner.schedule(num_layers), pruner.pruning_layers(num_layers)[0]
    counts = tokens_per_layer(576, stages, num_layers)
    assert counts[:first] == [576] * first
    assert sum(counts[first:]) / (num_layers - first) == pytest.approx(576 * ratio, abs=0.51 if ratio > 0.01 else 1)


@pytest.mark.parametrize("method", [*SCHEDULED, VTW])
@pytest.mark.parametrize(("num_layers", "average"), [(32, 1 / 3), (28, 1 / 3), (28, 0.9)])
def test_protocol_average(method: type[Pruner], num_layers: int, average: float) -> None:
    pruner = with_average(method(ratio=average), average, num_layers)
    off = abs(layer_average(pruner.schedule(num_layers), num_layers) - average)
    assert off <= (0.5 / num_layers + 1e-9 if method is VTW else 1e-6)


def test_an_average_below_the_first_layers_names_the_remedy() -> None:
    with pytest.raises(UserError, match="prune earlier or keep more"):
        with_average(PyramidDrop(), 0.111, 32)
    pruner = with_average(PyramidDrop(layer=2), 0.111, 32)
    assert layer_average(pruner.schedule(32), 32) == pytest.approx(0.111, abs=1e-6)


@pytest.mark.parametrize(
    ("pruner", "num_layers", "layers"),
    [
        (SparseVLM(), 32, [3, 7, 16]),
        (SparseVLM(), 28, [3, 6, 14]),
        (SparseVLM(), 64, [6, 14, 32]),
        (SparseVLM(), 5, [1, 2, 3]),
        (SparseVLM(), 3, [1, 2]),
        (SparseVLM(layer=2), 28, [2, 6, 14]),
        (SparseVLM(layers=(4, 5, 20)), 28, [4, 5, 20]),
        (PyramidDrop(), 28, [7, 14, 21]),
        (PyramidDrop(layers=(2, 4, 6, 8)), 28, [2, 4, 6, 8]),
        (SparseVLMv1(), 32, [3, 7, 16, 20]),
        (MustDrop(), 32, [3, 7, 11, 15]),
        (FitPrune(), 4, [1, 2, 3]),
    ],
)
def test_layers_scale_with_depth(pruner: Any, num_layers: int, layers: list[int]) -> None:
    assert pruner.pruning_layers(num_layers) == layers


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PyramidDrop(layers=(3, 3)), "must increase"),
        (lambda: PyramidDrop(budget="avg"), "budget 'avg' is unknown; expected one of site, paper"),  # type: ignore[arg-type]
        (lambda: PyramidDrop(layers=(2, 32), ratio=0.5).schedule(32), "layer 32 is outside"),
        (lambda: SparseVLM(layer=40, ratio=0.5).schedule(32), "layer 40 is outside"),
        (lambda: SparseVLM(layers=(1, 2, 3, 4), ratio=0.5).schedule(32), "prunes before 3 layers"),
        (lambda: SparseVLM(layers=(0, 2)), "does not exist before layer 0"),
        (lambda: VTW(layer=3), "follows from its ratio"),
        (lambda: FitPrune(layer=2), "leave out layer"),
        (lambda: FitPrune(recipe=(600,)), "must leave some"),
        (lambda: DART(visual_pivots=0), "visual_pivots 0"),
        (lambda: SparseVLMv1(scale=-1.0), "scale -1.0"),
        (lambda: SparseVLMv2(heads=1.5), "heads 1.5"),
        (lambda: MustDrop(window=0), "window 0"),
        (lambda: MustDrop(individual_threshold=2.0), "individual_threshold 2.0"),
    ],
)
def test_refused_fields(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()


def test_interpolation() -> None:
    table = {0.0: [0.0, 0.0], 0.5: [1.0, 0.5], 1.0: [1.0, 1.0]}
    assert between(table, 0.5) == [1.0, 0.5]
    assert between(table, 0.25) == [0.5, 0.25]
    assert between(table, -1) == [0.0, 0.0]
    assert between(table, 2) == [1.0, 1.0]


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_cards(name: str) -> None:
    card = " ".join(METHODS.get(name).__doc__.split())
    for part in ("Differs from the paper in:", "Differs from the release in:", "Cost:", "arXiv"):
        assert part in card


# --- DART -------------------------------------------------------------------------------------------------------
def test_dart_quotas() -> None:
    assert quotas(192, 4, 8, released=False) == [24, 24, 24, 24, 23, 23, 23, 23]
    assert [4 + sum(quotas(keep, 4, 8, released=True)) for keep in (192, 128, 64)] == [196, 132, 68]


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
    """What the driver finds is what masked forwards say."""
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
        for x in samples:
            search.observe(model, x)
        want = find_k(torch.cat(full), torch.cat(withdrawn), eta, first=2)
        if want is None:
            with pytest.raises(UserError, match=r"no layer from 2 on .* --search eta="):
                search.result()
        else:
            assert search.result().ratio == want / LAYERS
            assert VTW(ratio=float(f"{search.result().ratio:.6g}")).schedule(LAYERS)[0].layer == want


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
    with pytest.raises(UserError, match="layer 0 sees all"):
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


def test_compositions_with_methods_before_the_language_model() -> None:
    for name in METHOD_NAMES:
        pruner = MethodChoice(f"divprune+{name}", ratio=0.25).pruner()
        if name == "mustdrop":  # it begins before layer 0 itself
            with pytest.raises(UserError, match="must increase"), prune(build("llava"), pruner):
                pass
            continue
        with prune(build("llava"), pruner) as session:
            generate(build("llava"), inputs("llava", (2,)), 3)
        assert session.reports[-1].rows[0].entering[0] == 16


def test_a_prompt_that_ends_with_its_image_is_refused() -> None:
    x = inputs("llava")
    end = int((x["input_ids"][0] == IMAGE).nonzero()[-1]) + 1
    short: dict[str, Tensor] = {
        **x,
        "input_ids": x["input_ids"][:, :end],
        "attention_mask": x["attention_mask"][:, :end],
    }
    for pruner in (SparseVLM(ratio=0.5), MustDrop(ratio=0.5), FitPrune(ratio=0.5)):
        with prune(build("llava"), pruner), pytest.raises(UserError, match="put the question after the image"):
            generate(build("llava"), short, 1)
    for pruner in (DART(ratio=0.5), PyramidDrop(ratio=0.5), VTW(ratio=0.5)):
        with prune(build("llava"), pruner):
            generate(build("llava"), short, 1)
