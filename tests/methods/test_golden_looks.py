"""Selections of methods that look at states inside the decoder equal those of their releases, stored as numbers.

What a case stores of a layer passes through the method's own `look`; its rows reach `select` as the engine hands them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, Methods, golden, llama_attention, picked, rotary, same
from tests.helpers.views import decide, make_view
from uniprune.engine.attention import AttentionCapture
from uniprune.engine.view_attention import ViewAttention
from uniprune.pruning.budget import tokens_per_layer
from uniprune.pruning.looks import Look, Passage


def looked(method: Any, at: Look, entering: Tensor, leaving: Tensor) -> Tensor:
    """Return the rows [n, ...] of one sequence between padding of another value."""
    real = torch.ones(1, len(entering) + 2, dtype=torch.bool)
    real[0, :2] = False
    padded = (torch.nn.functional.pad(one, (0, 0, 2, 0), value=9)[None] for one in (entering, leaving))
    return method.look(Passage(at, *padded, real))[0, 2:]


@golden("llm_v2drop")
def test_v2drop(case: Case, methods: Methods) -> None:
    layers = tuple(case.stage_layers.tolist())
    method, left = methods("v2drop")(layers=layers), torch.arange(case.N)
    assert method.looks(layers) == [Look(layer - 1) for layer in layers]
    for number, look in enumerate(method.looks(layers)):
        stage = case.at(number)
        rows = looked(method, look, stage.before, stage.now)
        answer = decide(
            method, make_view(stage.now, layer=look.layer + 1, seen=[rows.new_zeros(len(left)), rows]), stage.k
        )
        picked(answer, stage.keep)
        left = left[answer.indices]
        after = case.S + case.N + torch.arange(case.T)
        same(torch.cat([torch.arange(case.S), case.S + left, after]), stage.positions)
    same(left, case.final_keep_original)


def test_v2drop_schedules(methods: Methods) -> None:
    """Those of the release for LLaVA and, as fields, for Qwen2-VL."""
    llava = methods("v2drop")(ratio=0.5, budget="paper").schedule(32)
    assert tokens_per_layer(576, llava, 32) == [576] * 3 + [288] * 14 + [144] * 5 + [1] * 10
    qwen = methods("v2drop")(ratio=0.25, budget="paper", layers=(3, 16, 22), left=(0.25, 0.0125, 0.0)).schedule(28)
    assert tokens_per_layer(400, qwen, 28) == [400] * 3 + [100] * 13 + [5] * 6 + [1] * 6


@golden("llm_transprune")
def test_transprune(case: Case, methods: Methods) -> None:
    cuts = tuple(case.prune_layers.tolist())
    listed = tuple(layer - 1 for layer in case.accumulate_layers.tolist())
    method = methods("transprune")(layers=cuts, accumulated=listed)
    looks, left, seen, stage = method.looks(cuts), torch.arange(case.N), list[Tensor](), 0
    assert looks == [Look(layer, part) for layer in listed for part in ("attention", "mlp")]
    for layer in range(cuts[-1] + 1):
        if layer in cuts:
            left, seen = cut(case.at(stage), case, method, left, seen)
            stage += 1
        if layer in listed:
            stored = [getattr(case, f"l{layer}_{name}") for name in ("attn_in", "attn_out", "ffn_in", "ffn_out")]
            own = [
                looked(method, Look(layer, "attention"), *stored[:2]),
                looked(method, Look(layer, "mlp"), *stored[2:]),
            ]
            want = getattr(case, f"l{layer}_transition")
            torch.testing.assert_close(sum(own), want.to(own[0]), rtol=1e-4, atol=1e-7)
            seen += [rows[case.S : case.S + len(left)] for rows in own]
    same(left, case.final_keep_original)


def cut(stage: Case, case: Case, method: Any, left: Tensor, seen: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return what a cut of the release leaves of the tokens, and the rows of these."""
    length, text = len(stage.features), torch.arange(case.S + len(left), len(stage.features))
    cos, sin = rotary(length, case.head_dim, case.rope_base, stage.dtype)  # the release numbers positions anew
    attention = ViewAttention(
        AttentionCapture(
            llama_attention(Heads(case), stage.wq, stage.wk), 0, stage.features[None], cos, sin, None, None
        ),
        0,
        lambda: None,
        lambda: torch.arange(case.S, case.S + len(left)),
        lambda: text,
        lambda: text,
        lambda: text[-1:],
        lambda: None,
    )
    rows = attention(torch.arange(case.T))
    stored = stage.attn_text[..., case.S : case.S + len(left)]
    torch.testing.assert_close(rows.to(stored), stored, atol=1e-6, rtol=1e-4)
    view = make_view(stage.features[case.S :][: len(left)], seen=seen, upcoming=attention, after=torch.arange(case.T))
    answer = decide(method, view, stage.k)
    picked(answer, stage.keep)
    return left[answer.indices], [rows[answer.indices] for rows in seen]


class Heads:
    """The part of a case that `llama_attention` reads."""

    def __init__(self, case: Case) -> None:
        self.head_dim, self.dtype = case.head_dim, case.dtype


def test_transprune_defaults(methods: Methods) -> None:
    """Layers and counts of the release on 32 layers; one layer less on fewer tokens is not looked at."""
    method = methods("transprune")(ratio=0.125, budget="paper")
    assert tokens_per_layer(576, method.schedule(32), 32) == [576] * 7 + [504] * 2 + [360] * 3 + [72] * 20
    assert {look.layer for look in method.looks([7, 9, 12])} == {6, 7, 8, 9, 10, 11}
    assert method.prompt_aware
