"""Selections of the methods inside the language model equal those of the authors' released code, stored as numbers.

Each case runs in float64 and in float32. Where a name starts with `upb_`, the stored numbers are those of the defective
port in UniPruneBench's release; the tests show that ours differs from them.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from tests.helpers.golden_cases import FOLDER, Case, Rows, ascending, golden, rotary, same
from tests.helpers.views import decide, make_view
from uniprune.engine.attention import AttentionCapture, ViewAttention
from uniprune.engine.compaction import pack, renumbered, replace_tokens, take
from uniprune.methods._fitprune import received
from uniprune.methods.calibration.vtw import divergences, earliest
from uniprune.methods.dart import DART, largest_keys, least_similar
from uniprune.methods.fastv import FastV
from uniprune.methods.fitprune import FitPrune, importance
from uniprune.methods.pyramiddrop import PyramidDrop
from uniprune.methods.random_intra import RandomIntra
from uniprune.pruning.base import Selection
from uniprune.pruning.budget import keep_count, tokens_per_layer


# --- FastV, random ----------------------------------------------------------------------------------------------
@golden("llm_fastv")
def test_fastv(case: Case) -> None:
    """The set of the release, and with `order="release"` the order of UniPruneBench's port, most attended first."""
    rows = case.attn_last[:, None, case.sys : case.sys + case.N]
    tokens = torch.arange(case.N)[:, None].to(case.dtype)
    view = make_view(tokens, attention=Rows(rows[:, :0], last=rows))
    keep = keep_count(case.N, case.ratio)
    assert keep == case.k_official
    same(ascending(FastV().select(view, keep)), case.keep)
    ported = decide(FastV(order="release"), view, case.upb_k)
    assert ported.tokens is not None
    same(ported.indices, case.upb_keep)
    same(ported.tokens[:, 0], case.upb_keep_unsorted)
    same(case.upb_pdrop_keep_unsorted, case.upb_keep_unsorted)  # the port's PyramidDrop is its FastV
    same(ascending(FastV().select(view, case.k_hf)), case.keep_hf)


@golden("llm_random_intra")
def test_random_intra(case: Case) -> None:
    """The release draws from the global generator; with ours seeded alike the sets are the same."""
    view = make_view(torch.zeros(case.N, 1), generator=torch.Generator().manual_seed(case.seed))
    same(ascending(RandomIntra().select(view, case.k)), case.keep)


@golden("llm_upb_merge_positions")
def test_order_and_positions_of_the_port(case: Case) -> None:
    """One-dimensional ids: the port's sequence is `order="release"` with compact positions. With M-RoPE ids, its tokens
    keep their own ids but change places, which is not offered: causal masking would follow the new order."""
    hidden, order = case.hidden, case.keep_unsorted
    visual = torch.arange(case.sys, case.sys + case.N)
    text = torch.cat([torch.arange(case.sys), torch.arange(case.sys + case.N, hidden.shape[1])])
    answer = Selection(ascending(order), hidden[0, visual[order]])
    columns = ascending(torch.cat([text, visual[answer.indices]]))
    everything = torch.arange(hidden.shape[1])[None]
    kept, gathered = pack(2, [columns], everything)
    out = take(replace_tokens(hidden, [(0, visual[answer.indices], answer.tokens)]), gathered)
    if case.dim == 2:
        torch.testing.assert_close(out, case.out_hidden, rtol=0, atol=0)
        same(renumbered(kept, torch.ones_like(everything, dtype=torch.bool))[0], case.out_position_ids)
    else:
        own = torch.cat([torch.arange(case.sys), visual[order], torch.arange(case.sys + case.N, hidden.shape[1])])
        torch.testing.assert_close(hidden[:, own], case.out_hidden, rtol=0, atol=0)
        same(case.position_ids[..., own], case.out_position_ids)
        same(case.position_ids[..., columns], case.out_position_ids[..., own.argsort()])


# --- DART -------------------------------------------------------------------------------------------------------
@golden("llm_dart")
def test_dart(case: Case) -> None:
    """With the release's order of pivots (that of a Python set) and count, the release's tokens."""
    keys, hidden = case.keys[0].transpose(0, 1).flatten(1), case.hidden[0]
    visual, text = slice(case.sys, case.sys + case.N), slice(case.sys + case.N, None)
    same(largest_keys(keys[visual], 4), case.img_pivots)
    same(largest_keys(keys[text], 4), case.txt_pivots)

    def kept(order: Tensor, count: float) -> Tensor:
        pivots = order[(order >= case.sys) & (order < case.sys + case.N)] - case.sys
        return least_similar(hidden[visual], hidden[order], pivots, [int(count) // len(order)] * len(order))

    same(kept(case.iter_order_abs, case.max_num_trunction), case.keep)
    same(kept(case.iter_order_abs, case.max_num_trunction), case.keep_llava_trunc)
    same(kept(case.iter_order_abs, case.N * case.ratio), case.keep_llava)
    same(kept(case.iter_order_abs, case.N * case.ratio), case.keep_qwen25)
    same(kept(case.upb_iter_order_abs, case.N * case.ratio), case.upb_keep)


@golden("llm_dart")
def test_dart_meets_the_budget_the_release_misses(case: Case) -> None:
    keys, hidden = case.keys[0].transpose(0, 1).flatten(1), case.hidden[0]
    attention = SimpleNamespace(
        keys=lambda rows: keys[case.sys :][: case.N] if isinstance(rows, str) else keys[case.sys + case.N :][rows]
    )
    text = hidden[case.sys + case.N :]
    view = make_view(
        hidden[case.sys : case.sys + case.N],
        text=text,
        after=torch.arange(len(text)),
        attention=attention,
        norm=lambda x: x,
    )
    for keep in (2, case.max_num_trunction, case.N - 1):
        assert len(set(DART().select(view, keep).tolist())) == keep
    assert set(case.img_pivots.tolist()) <= set(DART().select(view, case.max_num_trunction).tolist())
    assert len(case.keep) == 4 + 8 * (case.max_num_trunction // 8)


# --- VTW --------------------------------------------------------------------------------------------------------
@golden("llm_vtw_findk")
def test_vtw_search(case: Case) -> None:
    torch.testing.assert_close(divergences(case.logits_full_last, case.logits_withdrawn), case.kl, rtol=1e-4, atol=1e-6)
    for eta in (0.003, 0.0005):
        want = getattr(case, f"K_eta{eta}")
        found = earliest(divergences(case.logits_full_last, case.logits_withdrawn), eta, case.first_candidate_layer)
        assert found == (None if want < 0 else want)
    twice = divergences(case.logits_full_last.repeat(2, 1), case.logits_withdrawn.repeat(2, 1, 1))
    assert earliest(twice, 0.003) == getattr(case, "K_eta0.003")
    assert earliest(twice, -1.0) is None


# --- PyramidDrop ------------------------------------------------------------------------------------------------
@golden("llm_pdrop")
def test_pyramiddrop(case: Case) -> None:
    length = len(case.features)
    linear = lambda weight: lambda x: x @ weight.T  # noqa: E731
    module = SimpleNamespace(
        q_proj=linear(case.wq), k_proj=linear(case.wk), head_dim=case.head_dim, scaling=case.head_dim**-0.5
    )
    cos, sin = rotary(length, case.head_dim, case.rope_base, case.dtype)
    attention = ViewAttention(
        captured=AttentionCapture(module, 0, case.features[None], cos, sin, None),
        row=0,
        valid=torch.ones(length, dtype=torch.bool),
        visual=torch.arange(case.sys, case.sys + case.n_vis_in),
        text=torch.arange(0),
        prompt=torch.arange(0),
    )
    row = attention("last")[:, 0]
    torch.testing.assert_close(
        row.to(case.dtype), case.attn_last[:, case.sys :][:, : case.n_vis_in], atol=1e-6, rtol=1e-4
    )
    view = make_view(case.features[case.sys :][: case.n_vis_in], upcoming=attention)
    keep = math.floor(case.N0 * case.ratios[case.stage + 1].item())
    same(ascending(PyramidDrop().select(view, keep)), case.keep)


def test_pyramiddrop_paper_schedule() -> None:
    stages = PyramidDrop(ratio=0.125, budget="paper").schedule(32)
    assert tokens_per_layer(576, stages, 32) == [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8


# --- FitPrune ---------------------------------------------------------------------------------------------------
@golden("llm_fitprune")
def test_fitprune(case: Case) -> None:
    visual, text = case.attn_vt.split([case.N, case.text], dim=1)
    score = importance(received(visual.split(5, dim=1)), received(text.split(5, dim=1)))
    torch.testing.assert_close(score, case.score, rtol=1e-4, atol=1e-7)
    view = make_view(visual[0], attention=Rows(text, visual=visual), after=torch.arange(case.text))
    same(ascending(FitPrune().select(view, case.N - case.n_delete)), case.keep)


@golden("llm_fitprune")
def test_fitprune_is_not_inverted(case: Case) -> None:
    """The port keeps the least important tokens; ours and the port's sets share none at a small ratio."""
    visual, text = case.attn_vt.split([case.N, case.text], dim=1)
    view = make_view(visual[0], attention=Rows(text, visual=visual), after=torch.arange(case.text))
    for ratio in (0.111, 0.333):
        inverted = getattr(case, f"upb_keep_unsorted_{ratio}")
        kept = FitPrune().select(view, len(inverted))
        assert not set(kept.tolist()) & set(inverted.tolist())
        assert case.score[kept].min() > case.score[inverted].max()


def test_fitprune_published_recipes() -> None:
    with np.load(FOLDER / "llm_fitprune_schemes.npz") as schemes:
        for name in schemes.files:
            left = 1 - int(name.removeprefix("red")) / 100
            deleted = schemes[name].cumsum()
            stages = FitPrune(ratio=round(left, 2), budget="paper").schedule(32)
            assert tokens_per_layer(576, stages, 32) == [576, *(576 - deleted[:-1]).tolist()]
