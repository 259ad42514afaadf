"""`positions="vllm"`: ids equal vLLM's, stored as numbers, and the model receives them, in prefill and decoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.golden_cases import Case, golden, same
from tests.helpers.oracles import deepstack_rows, dropped_by, merged_inputs, physically_short
from tests.helpers.pruners import generate
from tests.helpers.tiny import IMAGE, VIDEO, build, inputs, small
from uniprune.engine import PromptInfo, prune
from uniprune.engine.served_positions import vllm_positions
from uniprune.engine.token_map import Tokens
from uniprune.errors import UnsupportedError
from uniprune.methods.fastv import FastV
from uniprune.methods.random_pre import RandomPre
from uniprune.pruning.base import PreLLM
from uniprune.pruning.view import View

VISUAL = 3
"""Id of placeholders in the stored prompts; others are text, start and end of an image."""
RULES: dict[str, Any] = {"qwen2.5": "width", "qwen3-image": "kept", "qwen3-video": "unpruned"}


def stock(case: Case) -> tuple[Tensor, Tensor]:
    """[3, L] ids of the un-pruned prompt as transformers assigns them, and [3, 1] the next ones."""
    frames = case.path == "qwen3-video"
    rate = case.tokens_per_second.tolist() if case.path == "qwen2.5" else [1.0] * len(case.grids)
    grids: Iterator[tuple[list[int], float]] = (
        (part, own)
        for (t, h, w), own in zip(case.grids.tolist(), rate, strict=True)
        for part in ([[1, h, w]] * t if frames else [[t, h, w]])
    )
    tokens, ids, after = case.tokens_full.tolist(), list[list[int]](), 0
    while len(ids) < len(tokens):
        if tokens[len(ids)] != VISUAL:
            ids.append([after] * 3)
            after += 1
            continue
        (t, h, w), own = next(grids)
        cells = np.stack(np.unravel_index(np.arange(t * h * w), (t, h, w)), 1)
        cells[:, 0] = np.floor(cells[:, 0] * own)
        ids += (cells + after).tolist()
        after += int(cells.max()) + 1
    return torch.tensor(ids).T, torch.full((3, 1), after)


@golden("llm_vllm_positions")
def test_ids_equal_those_of_vllm(case: Case) -> None:
    positions, after = stock(case)
    visual = case.tokens_full == VISUAL
    index = (~visual).clone()
    index[visual] = case.keep_mask
    same(case.tokens_full[index], case.tokens)
    rules = {VISUAL: RULES[case.path]}
    tokens = Tokens(case.tokens_full[None], visual[None], torch.ones(1, len(visual), dtype=torch.bool))
    where = index.nonzero()[:, 0][None]
    ids, shift = vllm_positions(rules, tokens, positions[:, None], after[:, None], where)
    same(ids[:, 0], case.positions)
    assert int(after[0, 0] - shift[0, 0]) - len(case.tokens) == case.delta
    # Alone, or in a batch with another prompt before it: padding has index 0.
    both = Tokens(*(one.repeat(2, 1) for one in (case.tokens_full, visual, torch.ones_like(visual))))
    twice = positions[:, None].repeat(1, 2, 1), after[:, None].repeat(1, 2, 1)
    again, falls = vllm_positions(rules, both, *twice, torch.cat((torch.zeros_like(where), where)))
    same(again[:, 1], case.positions)
    assert falls[1] == shift[0]
    assert positions.shape[1] == len(case.tokens_full)


@dataclass(frozen=True, kw_only=True)
class First(PreLLM):
    """Keeps the first tokens: the upper rows, or the first frames."""

    def select(self, view: View, keep: int) -> Tensor:
        return torch.arange(keep)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(("images", "clips"), [(1, 0), (2, 0), (0, 1), (1, 1)])
def test_a_prefill_and_decoding_equal_short_prompts_with_these_ids(family: str, images: int, clips: int) -> None:
    """A hand-written loop gets the tokens that are left, and ids of the definition; a padded batch of two prompts."""
    model, tiny, generator = build(family), small(family), torch.Generator().manual_seed(0)
    sizes = [(7, 2), (4, 3)][:images]
    prompts = [tiny.prompt(generator, sizes, before=5 + b, question=9 + 2 * b, clips=clips) for b in range(2)]
    with prune(model, First(ratio=0.25, positions="vllm")) as session:
        tokens, logits = generate(model, tiny.batch(prompts), 6)
    for row, prompt in enumerate(prompts):
        x = tiny.batch([prompt])
        with prune(model, First(ratio=0.25, positions="vllm")) as session:
            generate(model, x, 1)
        keep = ~dropped_by(session.reports[-1], x, IMAGE, VIDEO)[0][0]
        embeds, positions = merged_inputs(model, x)
        original = positions[:, 0].clone()
        positions[:, 0] = defined(original, x["input_ids"][0], keep, family)
        assert torch.equal(original, positions[:, 0]) == (not images)  # a clip is wider than high
        want_tokens, want = physically_short(model, embeds, positions, keep, 6, deepstack_rows(model, x))
        assert tokens[row].tolist() == want_tokens
        torch.testing.assert_close(logits[row], want, atol=1e-4, rtol=1e-3)


def defined(positions: Tensor, ids: Tensor, keep: Tensor, family: str) -> Tensor:
    """[3, L] position ids by the rule, from token to token."""
    found, after, column = torch.empty_like(positions), 0, 0
    while column < len(ids):
        end = column + 1
        while ids[column] in (IMAGE, VIDEO) and ids[end] == ids[column]:
            end += 1
        found[:, column:end] = positions[:, column:end] - positions[0, column] + after
        own = found[:, column:end]
        if family == "qwen3_vl" and ids[column] == IMAGE:
            own = own[:, keep[column:end]]
        after = int(own[2 if family == "qwen2_5_vl" else slice(3)].max()) + 1
        column = end
    return found


def test_the_model_is_as_before_and_keeps_its_ids_where_nothing_is_pruned() -> None:
    model, x = build("qwen2_5_vl"), inputs("qwen2_5_vl", (2,))
    tokens, logits = generate(model, x)
    with prune(model, First(positions="vllm")):
        again, same_logits = generate(model, x)
    assert torch.equal(tokens, again)
    assert torch.equal(logits, same_logits)


def test_embeddings_without_ids_and_later_layers_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r'"vllm" needs pruning before layer 0, not at layers \[2\]'):
        prune(build("qwen2_5_vl"), FastV(ratio=0.5, positions="vllm")).__enter__()
    tokens = Tokens(None, torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool))
    zeros = torch.zeros(3, 1, 4, dtype=torch.long)
    with pytest.raises(UnsupportedError, match="but the prompts are embeddings; pass input_ids"):
        vllm_positions({}, tokens, zeros, zeros[..., :1], zeros[0])


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "qwen3_5", "glm4v"])
def test_other_families_refuse_by_name(family: str) -> None:
    with (
        pytest.raises(
            UnsupportedError, match=r'positions="vllm" is defined for families whose images vLLM prunes, not'
        ),
        prune(build(family), RandomPre(ratio=0.5, positions="vllm")),
    ):
        pass


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_question_on_a_prefix_gets_the_ids_of_the_whole_prompt(family: str) -> None:
    model, tiny = build(family), small(family)
    x = tiny.batch([tiny.prompt(torch.Generator().manual_seed(0), [(7, 2)], question=9)])
    start = {name: one[:, :-6] if one.shape[:2] == x["input_ids"].shape else one for name, one in x.items()}
    with prune(model, First(ratio=0.25, positions="vllm")) as session:
        session.samples = (PromptInfo("a"),)
        found = generate(model, session.prefix(start).continued(x["input_ids"][:, -6:]), 4)
        session.samples = (PromptInfo("a"),)
        want = generate(model, x, 4)
    assert torch.equal(found[0], want[0])
    torch.testing.assert_close(found[1], want[1], atol=2e-4, rtol=1e-3)
