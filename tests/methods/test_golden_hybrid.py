"""Selections of the hybrid methods equal those of the authors' released code, stored as numbers.

Every case becomes a view, and the method's own `select` decides.

All cases run in both precisions but for one kind: clusterings marked `noise_sensitive` (llm_sparsevlm_cluster case 0,
one stage of cases 2 and 4 of llm_sparsevlm_v15). There mutual nearest neighbours have equal densities, and random noise
of 1e-6 decides as float32 rounds it; with the stored noise they are reproduced in float32, and skipped in float64.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch

from tests.helpers.golden_cases import Case, Methods, ascending, golden, llama_attention, picked, rotary, same
from tests.helpers.views import Rows, Tower, after_system, decide, llm_view, make_view, noise
from uniprune.engine.attention import AttentionCapture
from uniprune.engine.view_attention import ViewAttention
from uniprune.pruning.budget import tokens_per_layer
from uniprune.pruning.clustering import density_peaks
from uniprune.pruning.functional import group_means


# --- SparseVLM --------------------------------------------------------------------------------------------------
@golden("llm_sparsevlm_v15")
def test_sparsevlm(case: Case, methods: Methods) -> None:
    embeddings, method = case.embeddings[0], methods("sparsevlm")()
    text = after_system(embeddings[case.sys + case.N :], scale=9)
    embedded = SimpleNamespace(tokens=embeddings[case.sys :][: case.N], text=text)
    scratch: dict[str, torch.Tensor] = {}
    for number, k in enumerate(case.schedule.tolist()):
        stage = case.at(number)
        tokens = stage.layer_out[0, case.sys :][: stage.n_vis_in]
        view = llm_view(tokens, Rows(stage.attn_text2vis), embedded=embedded, initial=case.N, scratch=scratch)
        answer = method.select(view, stage.n_vis_out)
        embedded = SimpleNamespace(tokens=noise(*tokens.shape).to(tokens), text=noise(*text.shape).to(tokens))  # unread
        assert answer.tokens is not None
        assert (len(answer.indices), stage.n_vis_out) == (k + stage.cluster_num, k + stage.cluster_num)
        picked(answer.indices[:k], stage.keep)
        order = stage.score[answer.indices[:k]]
        assert bool((order[:-1] >= order[1:] - 1e-7).all())
        assert set(answer.indices[k:].tolist()) <= set(stage.recycle_src_idx.tolist())
        if stage.noise_sensitive:
            continue  # the stored result hangs on the noise
        torch.testing.assert_close(answer.tokens[k:], stage.merged, rtol=1e-5, atol=1e-5)
        before, after = stage.layer_out[0, : case.sys], stage.layer_out[0, case.sys + stage.n_vis_in :]
        out = torch.cat([before, tokens[answer.indices[:k].sort().values], answer.tokens[k:], after])
        torch.testing.assert_close(out, stage.out_hidden[0], rtol=1e-5, atol=1e-5)


def test_sparsevlm_published_schedules(methods: Methods) -> None:
    counts = {192: (309, 204, 113), 128: (312, 117, 39), 96: (249, 55, 27), 64: (82, 32, 18)}
    for tokens, (a, b, c) in counts.items():
        stages = methods("sparsevlm")(ratio=tokens / 576, budget="paper").schedule(32)
        assert tokens_per_layer(576, stages, 32) == [576] * 3 + [a] * 4 + [b] * 9 + [c] * 16
    for label in (0.333, 0.222, 0.111):  # as typed on a command line
        stages = methods("sparsevlm")(ratio=label, budget="paper").schedule(32)
        assert tokens_per_layer(576, stages, 32)[3::4][:1] == [counts[round(label * 576)][0]]


def test_sparsevlm_v2_published_schedules(methods: Methods) -> None:
    counts = {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)}
    for tokens, (a, b, c) in counts.items():
        stages = methods("sparsevlm-v2")(ratio=tokens / 576, budget="paper").schedule(32)
        assert tokens_per_layer(576, stages, 32) == [576] * 3 + [a] * 4 + [b] * 9 + [c] * 16


@golden("llm_sparsevlm_cluster")
def test_clustering(case: Case) -> None:
    sensitive = case.noise_maxdiff > 0
    if sensitive and case.dtype == torch.float64:
        return  # the stored result hangs on how float32 rounds densities
    noise = case.noise_rand * 1e-6 if sensitive else None
    centres, owner = density_peaks(case.x, case.k, noise)
    assert owner[centres].tolist() == list(range(case.k))
    torch.testing.assert_close(group_means(case.x, owner, case.k), case.merged, rtol=1e-5, atol=1e-5)


def rated(case: Case) -> SimpleNamespace:
    """Embeddings of which the case's raters, and no other text after the image, are like the image."""
    text = torch.zeros(case.attn_text2vis.shape[1], 1)
    text[case.rater_text_idx] = 1
    return SimpleNamespace(tokens=torch.ones(case.N, 1), text=after_system(text, scale=9))


@golden("llm_sparsevlm_v10_rank")
def test_sparsevlm_v1(case: Case, methods: Methods) -> None:
    tokens = torch.randn(case.N, 8, generator=torch.Generator().manual_seed(0), dtype=case.dtype)
    view = llm_view(tokens, Rows(case.attn_text2vis), embedded=rated(case))
    answer = methods("sparsevlm-v1")(ratio=0.5, scale=case.scale, bias=case.bias).select(view, 1)
    count, dropped = len(case.keep), case.N - len(case.keep)
    assert count == min(case.N - 1, max(1, int(case.scale * case.rank + case.bias)))
    picked(answer.indices[:count], case.keep)
    same(answer.tokens[:count], tokens[answer.indices[:count]])
    assert len(answer.indices) == count + int(0.3 * dropped + 1) // 10 + 1


def test_sparsevlm_v1_published_scales(methods: Methods) -> None:
    """One rater's row has rank 1, so the scale is the number of tokens."""
    view = llm_view(
        noise(100, 4), Rows(noise(2, 1, 100)), embedded=SimpleNamespace(tokens=noise(100, 4), text=noise(4, 4))
    )
    for ratio, scale in ((1 / 9, 1), (2 / 9, 9), (1 / 3, 13), (2 / 3, 27)):
        answer = methods("sparsevlm-v1")(ratio=ratio).select(view, 1)
        dropped = 100 - scale
        assert len(answer.indices) == scale + int(0.3 * dropped + 1) // 10 + 1


@golden("llm_sparsevlm_v20")
def test_sparsevlm_v2(case: Case, methods: Methods) -> None:
    text, start = case.attn_text2vis.shape[1], 35
    length = start + case.N + text
    cos, sin = rotary(length, case.head_dim, case.rope_base, case.dtype)
    prior = ViewAttention(
        AttentionCapture(llama_attention(case), 0, torch.zeros(1, length, 1), cos, sin, None, None),
        0,
        lambda: None,
        lambda: torch.arange(start, start + case.N),
        lambda: torch.arange(start + case.N, length),
        lambda: torch.arange(0),
        lambda: torch.tensor([length - 1]),
        lambda: None,
    ).rotary_prior("text")
    torch.testing.assert_close(prior.to(case.dtype), case.rope_bias_text2vis, atol=1e-4, rtol=1e-4)
    attention = Rows(case.attn_text2vis, prior=case.rope_bias_text2vis)
    view = llm_view(noise(case.N, 4), attention, embedded=rated(case))
    assert case.n_heads_selected == 14
    method = methods("sparsevlm-v2")(heads=14 / 16)
    picked(decide(method, view, case.k), case.keep)
    score = case.score[method.select(view, case.k)]
    assert bool((score[:-1] >= score[1:] * (1 - 1e-4)).all())


# --- MustDrop ---------------------------------------------------------------------------------------------------
@golden("llm_mustdrop_merge")
def test_mustdrop_merges_windows(case: Case, methods: Methods) -> None:
    """Means of windows take the place of their centre; the release puts them first, most similar first."""
    patches, scores, side = case.x[1:], noise(case.grid**2), case.grid
    own = {} if (case.threshold, case.window) == (0.8, 3) else {"similarity": case.threshold, "window": case.window}
    merge = methods("mustdrop")(ratio=1 / 3, **own).schedule(32)[0]
    assert merge.layer == 0
    tower = Tower(hidden=(patches, {"layer": 1}), importance=(scores, {"layer": -1}))
    view = make_view(patches, grids=[(1, side, side)], vision=tower, cells=torch.arange(side**2) + 1000)
    answer = decide(merge.pruner, view, 1)
    merged, untouched = case.out[1:].split([case.n_windows_merged, case.n_out - case.n_windows_merged])
    assert answer.tokens is not None
    assert len(answer.indices) == case.n_out
    windows = (answer.tokens != patches[answer.indices]).any(1)
    torch.testing.assert_close(answer.tokens[~windows], untouched, rtol=0, atol=0)
    twins = torch.cdist(answer.tokens[windows], merged).argmin(1)
    picked(twins, torch.arange(len(merged)))
    torch.testing.assert_close(answer.tokens[windows], merged[twins], rtol=1e-5, atol=1e-6)
    around, centres = torch.arange(case.window) - case.window // 2, answer.indices[windows]
    inside = centres[:, None] + (around[:, None] * side + around).flatten()
    torch.testing.assert_close(answer.tokens[windows], patches[inside].mean(1))
    scores[centres] = scores[inside].mean(1)
    best = answer.indices[scores[answer.indices].argsort(descending=True)]
    picked(view.scratch["key cells"] - 1000, ascending(best[: -(-8 * len(best) // 100)]))


@golden("llm_mustdrop_prefill")
def test_mustdrop_filters(case: Case, methods: Methods) -> None:
    """Thresholds are given for 576 tokens; those of the table belong to a ratio."""
    scale = case.N / 576
    own = {"global_threshold": case.global_thr * scale, "individual_threshold": case.individual_thr * scale}
    table = {0.011: 1 / 9, 0.0012: 2 / 9, 0.001: 1 / 3}
    official = case.N == 576 and case.global_thr in table
    method = methods("mustdrop")(ratio=table[case.global_thr]) if official else methods("mustdrop")(ratio=0.5, **own)
    merge, *filters = method.schedule(32)
    assert [stage.layer for stage in filters] == [3, 7, 11, 15]
    scratch: dict[str, torch.Tensor] = {}
    ones = torch.ones(case.N, 1)  # one row of tokens: no window to merge
    tower = Tower(hidden=(ones, {"layer": 1}), importance=(case.cls_attn.mean(0), {"layer": -1}))
    seen = make_view(ones, grids=[(1, 1, case.N)], vision=tower, scratch=scratch)
    assert len(decide(merge.pruner, seen, 1).indices) == case.N
    (keys,) = scratch.values()
    picked(keys, case.keyset0)
    cells = torch.arange(case.N)
    for number, filter_ in enumerate(filters):
        stage = case.at(number)
        view = llm_view(
            torch.zeros(len(cells), 1), Rows(stage.attn_text2vis), cells=cells, initial=case.N, scratch=scratch
        )
        kept = decide(filter_.pruner, view, 1).indices
        same(kept, stage.keep)
        cells = cells[kept]
        same(torch.isin(cells, keys).nonzero()[:, 0], stage.keyset_out)
    same(cells, case.final_keep_original)
    first = method.evict_from(32)
    assert first is not None
    held = [case.sys + case.text + (case.N if layer < first else len(cells)) for layer in range(32)]
    assert held == case.kv_len_per_layer.tolist()


def test_mustdrop_published_thresholds(methods: Methods) -> None:
    """A token passes whose share of all attention, or whose largest entry, reaches the threshold for 576 tokens."""
    for ratio, total, largest in ((1 / 9, 0.011, 0.01), (2 / 9, 0.0012, 0.001), (1 / 3, 0.001, 0.001)):
        rows = torch.zeros(4, 40)
        rows[0, 0], rows[0, 1] = 0.98 * largest, 1.02 * largest  # half the threshold's share
        rows[:, 2], rows[:, 3] = 0.98 * largest / 2, 1.02 * largest / 2  # half the largest entry
        rows[:, 5:] = (2 * largest / total - rows.sum()) / (4 * 35)
        view = llm_view(torch.zeros(40, 1), Rows(rows[None].expand(2, -1, -1)), initial=576)
        view.scratch["key cells"] = torch.tensor([4])
        same(methods("mustdrop")(ratio=ratio).select(view, 1)[:3], torch.tensor([1, 3, 4]))
