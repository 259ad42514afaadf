"""Selections of the methods inside the language model equal those of the authors' released code, stored as numbers.

Every case becomes a view, and the method's own `select` decides; each runs in float64 and in float32. Where a name
starts with `upb_`, the stored numbers are those of the defective port in UniPruneBench's release; the tests show that
ours differs from them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.helpers.golden_cases import FOLDER, Case, Methods, ascending, golden, llama_attention, picked, rotary, same
from tests.helpers.views import Rows, after_system, decide, llm_view, make_view, noise
from uniprune.engine.attention import AttentionCapture
from uniprune.engine.compaction import replace_tokens, take
from uniprune.engine.kept_tokens import KeptTokens, Known, pack, renumbered, valid_columns
from uniprune.engine.view_attention import ViewAttention
from uniprune.errors import UserError
from uniprune.methods.calibration.vtw import divergences
from uniprune.pruning.base import Selection
from uniprune.pruning.budget import keep_count, tokens_per_layer
from uniprune.pruning.view import View


# --- FastV, random ----------------------------------------------------------------------------------------------
@golden("llm_fastv")
def test_fastv(case: Case, methods: Methods) -> None:
    """The set of the release, and with `order="release"` the order of UniPruneBench's port, most attended first."""
    row = case.attn_last[:, None, case.sys : case.sys + case.N]
    tokens = torch.arange(case.N)[:, None].to(case.dtype)
    view = llm_view(tokens, Rows(noise(len(row), 9, case.N).to(row), last=row))
    method, keep = methods("fastv"), keep_count(case.N, case.ratio)
    assert [(stage.layer, stage.ratio) for stage in method(ratio=case.ratio).schedule(32)] == [(2, case.ratio)]
    assert keep == case.k_official
    picked(decide(method(), view, keep), case.keep)
    ported = decide(method(order="release"), view, case.upb_k)
    assert ported.tokens is not None
    same(ported.indices, case.upb_keep)
    same(ported.tokens[:, 0], case.upb_keep_unsorted)
    same(case.upb_pdrop_keep_unsorted, case.upb_keep_unsorted)  # the port's PyramidDrop is its FastV
    picked(method().select(view, case.k_hf), case.keep_hf)


@golden("llm_random_intra")
def test_random_intra(case: Case, methods: Methods) -> None:
    """The release draws from the global generator; with ours seeded alike the sets are the same."""
    generator = torch.Generator().manual_seed(case.seed)
    view = make_view(torch.zeros(case.N, 1), generator=generator, initial=2 * case.N)
    method = methods("random-intra")()
    assert method.random
    assert method.layer == 2
    picked(decide(method, view, case.k), case.keep)


@golden("llm_upb_merge_positions")
def test_order_and_positions_of_the_port(case: Case) -> None:
    """One-dimensional ids: the port's sequence is `order="release"` with compact positions. With M-RoPE ids, its tokens
    keep their own ids but change places, which is not offered: causal masking would follow the new order."""
    hidden, order = case.hidden, case.keep_unsorted
    visual = torch.arange(case.sys, case.sys + case.N)
    text = torch.cat([torch.arange(case.sys), torch.arange(case.sys + case.N, hidden.shape[1])])
    answer = Selection(ascending(order), hidden[0, visual[order]])
    columns = ascending(torch.cat([text, visual[answer.indices]]))
    gathered, lengths = pack([columns.numpy()]), (len(columns),)
    kept = KeptTokens(2, lengths, *lengths, valid_columns(lengths), Known(gathered))
    out = take(replace_tokens(hidden, visual[answer.indices], answer.tokens), torch.from_numpy(gathered))
    if case.dim == 2:
        torch.testing.assert_close(out, case.out_hidden, rtol=0, atol=0)
        same(torch.from_numpy(renumbered(kept, np.ones(hidden.shape[:2], np.bool_))[0]), case.out_position_ids)
    else:
        own = torch.cat([torch.arange(case.sys), visual[order], torch.arange(case.sys + case.N, hidden.shape[1])])
        torch.testing.assert_close(hidden[:, own], case.out_hidden, rtol=0, atol=0)
        same(case.position_ids[..., own], case.out_position_ids)
        same(case.position_ids[..., columns], case.out_position_ids[..., own.argsort()])


# --- DART -------------------------------------------------------------------------------------------------------
def dart_view(case: Case) -> View:
    """The case as the decoder has it: before its final norm, which weighs channels by powers of two."""
    keys, hidden = case.keys[0].transpose(0, 1).flatten(1), case.hidden[0]
    visual, text = slice(case.sys, case.sys + case.N), slice(case.sys + case.N, None)
    weight = 2.0 ** (torch.arange(hidden.shape[1]) % 7 - 3).to(hidden)
    before = hidden / weight
    attention = Rows(noise(2, case.text, case.N), keys={"visual": keys[visual], "text": keys[text]})
    return llm_view(before[visual], attention, text=after_system(before[text], scale=9), norm=lambda x: x * weight)


def dart_rule(case: Case, pivots: list[int], quotas: list[int]) -> list[int]:
    """The released rule, read literally: each pivot in turn adds the tokens left that are least like it."""
    hidden, visual = case.hidden[0].double(), range(case.sys, case.sys + case.N)
    kept = [pivot for pivot in pivots if pivot in visual]
    for pivot, quota in zip(pivots, quotas, strict=True):
        cosine = torch.nn.functional.cosine_similarity(hidden[pivot], hidden, dim=-1).tolist()
        left = sorted((place for place in visual if place not in kept), key=cosine.__getitem__)
        kept += left[:quota]
    return sorted(place - case.sys for place in kept)


@golden("llm_dart")
def test_dart(case: Case, methods: Methods) -> None:
    """The rule gives the release's tokens with the release's order of pivots (that of a Python set) and count.

    `select` follows it with pivots by the length of their keys, visual ones first, and meets the budget.
    """
    for order, count, keep in (
        (case.iter_order_abs, case.max_num_trunction, case.keep),
        (case.iter_order_abs, case.max_num_trunction, case.keep_llava_trunc),
        (case.iter_order_abs, case.N * case.ratio, case.keep_llava),
        (case.iter_order_abs, case.N * case.ratio, case.keep_qwen25),
        (case.upb_iter_order_abs, case.N * case.ratio, case.upb_keep),
    ):
        assert dart_rule(case, order.tolist(), [int(count) // len(order)] * len(order)) == keep.tolist()
    view, method = dart_view(case), methods("dart")()
    assert (method.visual_pivots, method.text_pivots, method.layer) == (4, 4, 2)
    pivots = [*(case.sys + case.img_pivots).tolist(), *(case.sys + case.N + case.txt_pivots).tolist()]
    assert sorted(pivots) == sorted(case.iter_order_abs.tolist())
    for keep in (4, 12, 21, case.N // 2, case.N - 1):
        each, more = divmod(keep - 4, 8)
        want = dart_rule(case, pivots, [each + (number < more) for number in range(8)])
        assert decide(method, view, keep).indices.tolist() == want
    picked(decide(method, view, 2), ascending(case.img_pivots[:2]))
    ported = methods("dart")(visual_pivots=10, text_pivots=5)
    assert set(case.img_pivots.tolist()) <= set(decide(ported, view, 10).indices.tolist())
    assert len(case.keep) == 4 + 8 * (case.max_num_trunction // 8)  # the release misses the budget


# --- VTW --------------------------------------------------------------------------------------------------------
@golden("llm_vtw_findk")
def test_vtw_search(case: Case, methods: Methods) -> None:
    divergence = divergences(case.logits_full_last, case.logits_withdrawn)
    torch.testing.assert_close(divergence, case.kl, rtol=1e-4, atol=1e-6)
    twice = divergences(case.logits_full_last.repeat(2, 1), case.logits_withdrawn.repeat(2, 1, 1))
    for kl in (divergence, twice):
        seen = {"divergence": kl, "layers": torch.tensor(32), "first": torch.tensor(case.first_candidate_layer)}
        for eta in (0.003, 0.0005):
            search, want = methods("vtw").calibration(eta=eta), getattr(case, f"K_eta{eta}")
            if want >= 0:
                found = search.result([seen])
                (stage,) = methods("vtw")(ratio=found.ratio).schedule(32)
                assert (stage.layer, stage.ratio, found.evidence["layer"]) == (want, 0, want)
            else:
                with pytest.raises(UserError, match="no layer from 5 on can withdraw"):
                    search.result([seen])


def test_vtw_withdraws_everything_before_its_layer(methods: Methods) -> None:
    for ratio, layer in ((0.5, 16), (0.33, 11), (0.36, 12), (1 / 64, 1), (0.01, 1), (0.98, 31)):
        (stage,) = methods("vtw")(ratio=ratio).schedule(32)
        assert (stage.layer, stage.ratio) == (layer, 0)
        assert not len(decide(stage.pruner, make_view(torch.zeros(5, 1)), 0).indices)
    assert methods("vtw")(ratio=0.99).schedule(32) == methods("vtw")(ratio=1.0).schedule(32) == ()


# --- PyramidDrop ------------------------------------------------------------------------------------------------
@golden("llm_pdrop")
def test_pyramiddrop(case: Case, methods: Methods) -> None:
    length = len(case.features)
    module = llama_attention(case, case.wq, case.wk)
    cos, sin = rotary(length, case.head_dim, case.rope_base, case.dtype)
    attention = ViewAttention(
        AttentionCapture(module, 0, case.features[None], cos, sin, None, None),
        0,
        lambda: None,
        lambda: torch.arange(case.sys, case.sys + case.n_vis_in),
        lambda: torch.arange(0),
        lambda: torch.arange(0),
        lambda: torch.tensor([length - 1]),
        lambda: None,
    )
    row = attention("last")[:, 0]
    torch.testing.assert_close(
        row.to(case.dtype), case.attn_last[:, case.sys :][:, : case.n_vis_in], atol=1e-6, rtol=1e-4
    )
    view = llm_view(case.features[case.sys :][: case.n_vis_in], Rows(noise(len(row), 9, case.n_vis_in)))
    view.upcoming = attention
    keep = math.floor(case.N0 * case.ratios[case.stage + 1].item())
    picked(decide(methods("pyramiddrop")(), view, keep), case.keep)


def test_pyramiddrop_paper_schedule(methods: Methods) -> None:
    stages = methods("pyramiddrop")(ratio=0.125, budget="paper").schedule(32)
    assert tokens_per_layer(576, stages, 32) == [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8


# --- FitPrune ---------------------------------------------------------------------------------------------------
def fitprune_view(case: Case) -> View:
    visual, text = case.attn_vt.split([case.N, case.text], dim=1)
    return llm_view(visual[0], Rows(text, visual=visual))


@golden("llm_fitprune")
def test_fitprune(case: Case, methods: Methods) -> None:
    method, view, keep = methods("fitprune")(), fitprune_view(case), case.N - case.n_delete
    picked(decide(method, view, keep), case.keep)
    score = case.score[method.select(view, keep)]
    assert bool((score[:-1] >= score[1:] * (1 - 1e-4)).all())


@golden("llm_fitprune")
def test_fitprune_is_not_inverted(case: Case, methods: Methods) -> None:
    """The port keeps the least important tokens; ours and the port's sets share none at a small ratio."""
    for ratio in (0.111, 0.333):
        inverted = getattr(case, f"upb_keep_unsorted_{ratio}")
        kept = decide(methods("fitprune")(), fitprune_view(case), len(inverted)).indices
        assert not set(kept.tolist()) & set(inverted.tolist())
        assert case.score[kept].min() > case.score[inverted].max()


def test_fitprune_published_recipes(methods: Methods) -> None:
    with np.load(FOLDER / "llm_fitprune_schemes.npz") as schemes:
        for name in schemes.files:
            left = 1 - int(name.removeprefix("red")) / 100
            deleted = schemes[name].cumsum()
            stages = methods("fitprune")(ratio=round(left, 2), budget="paper").schedule(32)
            assert tokens_per_layer(576, stages, 32) == [576, *(576 - deleted[:-1]).tolist()]
