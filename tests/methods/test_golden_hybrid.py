"""Selections of the hybrid methods equal those of the authors' released code, stored as numbers.

All cases run in both precisions but for one kind: clusterings marked `noise_sensitive` (llm_sparsevlm_cluster case 0,
one stage of cases 2 and 4 of llm_sparsevlm_v15). There mutual nearest neighbours have equal densities, and random noise
of 1e-6 decides as float32 rounds it; with the stored noise they are reproduced in float32, and skipped in float64.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, Rows, ascending, golden, rotary, same
from tests.helpers.views import make_view
from uniprune.engine.attention import AttentionCapture, ViewAttention
from uniprune.methods._mustdrop import KEYS, WindowMerge, passes, similar_windows
from uniprune.methods._sparsevlm import raters, recycle, recycled, text_raters
from uniprune.methods.mustdrop import MustDrop
from uniprune.methods.sparsevlm import SparseVLM, split_budget
from uniprune.methods.sparsevlm_v1 import SparseVLMv1, kept_by_rank
from uniprune.methods.sparsevlm_v2 import SparseVLMv2, priority_heads
from uniprune.pruning.budget import tokens_per_layer
from uniprune.pruning.clustering import density_peaks
from uniprune.pruning.functional import group_means


# --- SparseVLM --------------------------------------------------------------------------------------------------
@golden("llm_sparsevlm_v15")
def test_sparsevlm(case: Case) -> None:
    embeddings = case.embeddings[0]
    visual, text = embeddings[case.sys :][: case.N], embeddings[case.sys + case.N :]
    chosen = text_raters(visual, text)
    same(chosen, case.rater_text_idx)
    for number, k in enumerate(case.schedule.tolist()):
        stage = case.at(number)
        assert split_budget(stage.n_vis_in, stage.n_vis_out) == (k, stage.cluster_num) == (stage.k, stage.cluster_num)
        assert recycled(stage.n_vis_in - k) == (stage.n_stage1, stage.cluster_num)
        score = stage.attn_text2vis[:, chosen].mean((0, 1))
        torch.testing.assert_close(score, stage.score, rtol=1e-4, atol=1e-8)
        tokens = stage.layer_out[0, case.sys :][: stage.n_vis_in]
        if stage.noise_sensitive and case.dtype == torch.float64:
            continue  # the stored result hangs on how float32 rounds densities
        noise = stage.noise_rand * 1e-6 if stage.noise_sensitive else None
        answer = recycle(tokens, score, k, stage.cluster_num, noise)
        same(ascending(answer.indices[:k]), stage.keep)
        assert set(answer.indices[k:].tolist()) <= set(stage.recycle_src_idx.tolist())
        assert answer.tokens is not None
        torch.testing.assert_close(answer.tokens[k:], stage.merged, rtol=1e-5, atol=1e-5)
        before, after = stage.layer_out[0, : case.sys], stage.layer_out[0, case.sys + stage.n_vis_in :]
        out = torch.cat([before, tokens[answer.indices[:k].sort().values], answer.tokens[k:], after])
        torch.testing.assert_close(out, stage.out_hidden[0], rtol=1e-5, atol=1e-5)


def test_sparsevlm_published_schedules() -> None:
    counts = {192: (309, 204, 113), 128: (312, 117, 39), 96: (249, 55, 27), 64: (82, 32, 18)}
    for tokens, (a, b, c) in counts.items():
        stages = SparseVLM(ratio=tokens / 576, budget="paper").schedule(32)
        assert tokens_per_layer(576, stages, 32) == [576] * 3 + [a] * 4 + [b] * 9 + [c] * 16
    stages = SparseVLMv2(ratio=1 / 3, budget="paper").schedule(32)
    assert tokens_per_layer(576, stages, 32) == [576] * 3 + [300] * 4 + [200] * 9 + [118] * 16
    for label in (0.333, 0.222, 0.111):  # as typed on a command line
        stages = SparseVLM(ratio=label, budget="paper").schedule(32)
        assert tokens_per_layer(576, stages, 32)[3::4][:1] == [counts[round(label * 576)][0]]


@golden("llm_sparsevlm_cluster")
def test_clustering(case: Case) -> None:
    sensitive = case.noise_maxdiff > 0
    if sensitive and case.dtype == torch.float64:
        return  # the stored result hangs on how float32 rounds densities
    noise = case.noise_rand * 1e-6 if sensitive else None
    centres, owner = density_peaks(case.x, case.k, noise)
    assert owner[centres].tolist() == list(range(case.k))
    torch.testing.assert_close(group_means(case.x, owner, case.k), case.merged, rtol=1e-5, atol=1e-5)


@golden("llm_sparsevlm_v10_rank")
def test_sparsevlm_v1(case: Case) -> None:
    attention = case.attn_text2vis[:, case.rater_text_idx].mean(0)
    assert int(torch.linalg.matrix_rank(attention.float())) == case.rank
    assert kept_by_rank(attention, case.scale, case.bias) == len(case.keep)
    tokens = torch.randn(case.N, 8, generator=torch.Generator().manual_seed(0), dtype=case.dtype)
    text = case.attn_text2vis.shape[1]
    view = make_view(
        tokens,
        attention=Rows(case.attn_text2vis),
        after=torch.arange(text),
        scratch={"raters": case.rater_text_idx},
    )
    answer = SparseVLMv1(ratio=0.5, scale=case.scale, bias=case.bias).select(view, 1)
    assert not isinstance(answer, Tensor)
    same(ascending(answer.indices[: len(case.keep)]), case.keep)
    assert len(answer.indices) == len(case.keep) + recycled(case.N - len(case.keep))[1]


@golden("llm_sparsevlm_v20")
def test_sparsevlm_v2(case: Case) -> None:
    text, start = case.attn_text2vis.shape[1], 35
    length = start + case.N + text
    cos, sin = rotary(length, case.head_dim, case.rope_base, case.dtype)
    module = SimpleNamespace(scaling=case.head_dim**-0.5)
    prior = ViewAttention(
        captured=AttentionCapture(module, 0, torch.zeros(1, length, 1), cos, sin, None),
        row=0,
        valid=torch.ones(length, dtype=torch.bool),
        visual=torch.arange(start, start + case.N),
        text=torch.arange(start + case.N, length),
        prompt=torch.arange(0),
    ).rotary_prior
    torch.testing.assert_close(prior("text").to(case.dtype), case.rope_bias_text2vis, atol=1e-4, rtol=1e-4)
    corrected = (case.attn_text2vis / case.rope_bias_text2vis)[:, case.rater_text_idx]
    torch.testing.assert_close(priority_heads(corrected, case.n_heads_selected), case.score, rtol=1e-3, atol=1e-6)
    attention = Rows(case.attn_text2vis)
    attention.rotary_prior = lambda rows: case.rope_bias_text2vis[rows]  # type: ignore[attr-defined]
    view = make_view(
        torch.zeros(case.N, 1), attention=attention, scratch={"raters": case.rater_text_idx}, after=torch.arange(text)
    )
    same(ascending(SparseVLMv2(heads=14 / 16).select(view, case.k)), case.keep)


def test_raters_are_chosen_once_per_image() -> None:
    generator = torch.Generator().manual_seed(0)
    text, tokens = torch.randn(9, 4, generator=generator), torch.randn(6, 4, generator=generator)
    view = make_view(tokens, embedded=SimpleNamespace(tokens=tokens, text=text), after=torch.tensor([5, 6, 7, 8]))
    first = raters(view)
    assert set(first.tolist()) <= {5, 6, 7, 8}
    view.embedded = None  # type: ignore[assignment]
    assert raters(view) is first


# --- MustDrop ---------------------------------------------------------------------------------------------------
@golden("llm_mustdrop_merge")
def test_mustdrop_merges_windows(case: Case) -> None:
    patches = case.x[1:]
    windows = similar_windows(patches, [(1, case.grid, case.grid)], case.window, case.threshold)
    assert len(windows) == case.n_windows_merged
    untouched = torch.ones(len(patches), dtype=torch.bool)
    untouched[windows.flatten()] = False
    out = torch.cat([case.x[:1], patches[windows].mean(1), patches[untouched]])
    torch.testing.assert_close(out, case.out, rtol=1e-5, atol=1e-6)
    assert case.size.tolist() == [1.0] + [9.0] * len(windows) + [1.0] * int(untouched.sum())


@golden("llm_mustdrop_prefill")
def test_mustdrop_filters(case: Case) -> None:
    seen = make_view(torch.zeros(case.N, 1), grids=[(1, 1, case.N)])  # one row of tokens: no window to merge
    seen.vision = SimpleNamespace(  # type: ignore[assignment]
        hidden=lambda layer: torch.zeros(case.N, 1), importance=lambda layer: case.cls_attn.mean(0)
    )
    assert len(WindowMerge(similarity=1.0, window=3, key_share=0.08).select(seen, 1).indices) == case.N
    keys = ascending(seen.scratch[KEYS])
    same(keys, case.keyset0)
    cells, scale = torch.arange(case.N), case.N / 576
    method = MustDrop(
        ratio=0.5, global_threshold=case.global_thr * scale, individual_threshold=case.individual_thr * scale
    )
    for number in range(4):
        stage = case.at(number)
        filtered = passes(stage.attn_text2vis.mean(0), case.global_thr, case.individual_thr)
        same(filtered.nonzero()[:, 0], stage.filter_keep)
        view = make_view(
            torch.zeros(len(cells), 1),
            cells=cells,
            initial=case.N,
            attention=Rows(stage.attn_text2vis),
            after=torch.arange(case.text),
            scratch={KEYS: keys},
        )
        kept = method.select(view, 1)
        same(kept, stage.keep)
        cells = cells[kept]
        same(torch.isin(cells, keys).nonzero()[:, 0], stage.keyset_out)
    same(cells, case.final_keep_original)
    first = method.evict_from(32)
    assert first is not None
    held = [case.sys + case.text + (case.N if layer < first else len(cells)) for layer in range(32)]
    assert held == case.kv_len_per_layer.tolist()
