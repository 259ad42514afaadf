"""Prefixes pruned once and continued many times: as if every prompt had been pruned by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.pruners import generate
from tests.helpers.tiny import COVERED, FAMILIES, build, inputs, video_inputs
from uniprune.engine import PromptInfo, prune
from uniprune.errors import UnsupportedError
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.families import find_adapter

pytestmark = pytest.mark.end_to_end

STEPS = 4
PRUNERS = {
    "un-pruned": RandomPre(ratio=1.0),
    "before": DivPrune(ratio=0.5),
    "compact": RandomPre(ratio=0.5, positions="compact"),
    "inside": RandomIntra(ratio=0.5, layer=2),
    "both": RandomPre(ratio=0.5) >> RandomIntra(ratio=0.3, layer=3),
}
LEDGER = ("initial", "entering", "markers", "tower", "text", "tokens", "positions", "pairs", "kv_bytes", "lengths")
"""Counts of a prompt."""
BEHIND = 2
"""Tokens of the prefix behind the last placeholder: marks that close an image, or text."""


def cut(family: str, x: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Return the prefix of a prompt as arguments of a forward, and the ids behind it."""
    ids = x["input_ids"]
    visual = torch.isin(ids[0], torch.tensor(find_adapter(build(family)).visual_token_ids))
    stop = int(visual.nonzero()[-1]) + 1 + BEHIND
    return {name: value[:, :stop] if value.shape[:2] == ids.shape else value for name, value in x.items()}, ids[
        :, stop:
    ]


def asked(x: dict[str, Tensor], prefix: dict[str, Tensor], question: Tensor) -> dict[str, Tensor]:
    """Return a whole prompt: a prefix with another question."""
    more = {"input_ids": question, "attention_mask": torch.ones_like(question)}
    changed = dict(x)
    for name, value in prefix.items():
        if value.shape[:2] == prefix["input_ids"].shape:
            changed[name] = torch.cat([value, more.get(name, torch.zeros_like(question))], 1)
    return changed


def cases() -> list[Any]:
    found = [(family, name) for family in FAMILIES for name in PRUNERS]
    return [*found, *((family, "both") for family in COVERED)]


@pytest.mark.sample(2)
@pytest.mark.parametrize(("family", "name"), cases())
def test_questions_on_a_prefix_get_the_answers_of_whole_prompts(family: str, name: str) -> None:
    """Also with another prefix prefilled in between: models keep its offset of positions."""
    kernel = "eager" if family.endswith("gpt_oss") else "sdpa"
    model, x, other = build(family, kernel), inputs(family), inputs(family, (2,), seed=1)
    pruner = PRUNERS[name]
    if name == "compact" and getattr(model.base_model, "rope_deltas", self_ := object()) is not self_:
        pytest.skip("M-RoPE has no compact positions")
    start, question = cut(family, x)
    questions = [question, question.flip(1)[:, :3], torch.cat([question, question], 1)]
    with prune(model, pruner) as session:
        session.samples = (PromptInfo("a"),)
        prefix = session.prefix(start)
        session.prefix(cut(family, other)[0])
        found = [generate(model, prefix.continued(ids), STEPS) for ids in questions]
        assert len(session.reports) == 2, "nothing is pruned again"
        for ids, (tokens, logits) in zip(questions, found, strict=True):
            session.samples = (PromptInfo("a"),)
            want_tokens, want = generate(model, asked(x, start, ids), STEPS)
            assert torch.equal(tokens, want_tokens)
            torch.testing.assert_close(logits, want, atol=2e-4, rtol=1e-3)
            [whole], row = session.reports.pop().rows, prefix.row(ids.shape[1])
            assert {name: getattr(row, name) for name in LEDGER} == {name: getattr(whole, name) for name in LEDGER}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_of_prefixes(family: str) -> None:
    model, x = build(family), inputs(family, (1, 2))
    question = torch.tensor([[11, 12, 13], [14, 15, 16]])
    with prune(model, PRUNERS["both"]) as session:
        session.samples = (PromptInfo("a"), PromptInfo("b"))
        prefix = session.prefix(x)
        tokens, logits = generate(model, prefix.continued(question), STEPS)
        session.samples = (PromptInfo("a"), PromptInfo("b"))
        want_tokens, want = generate(model, asked(x, x, question), STEPS)
    assert torch.equal(tokens, want_tokens)
    torch.testing.assert_close(logits, want, atol=2e-4, rtol=1e-3)


def test_methods_that_look_at_the_question_are_refused() -> None:
    with (
        prune(build("llava"), FastV(ratio=0.5)) as session,
        pytest.raises(UnsupportedError, match="FastV chooses tokens by the question"),
    ):
        session.prefix(cut("llava", inputs("llava"))[0])


def test_a_video_whose_time_goes_beyond_its_text_is_refused() -> None:
    """Text stands among its positions in time, generated tokens after them."""
    x, pruner = video_inputs(seconds=9.0), RandomPre(ratio=0.5)
    with prune(build("qwen2_5_vl"), pruner) as session, pytest.raises(UnsupportedError, match="a video's positions in"):
        session.prefix(x)
    with prune(build("qwen2_5_vl"), pruner) as session:
        session.prefix(video_inputs(seconds=1.0))


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_positions_that_do_not_continue_the_prefix_are_refused(family: str) -> None:
    """Such as those that `generate` counts anew for M-RoPE when it gets `mm_token_type_ids`, but no grids."""
    model, x = build(family), inputs(family)
    with prune(model, RandomPre(ratio=0.5)) as session, torch.no_grad():
        prefix = session.prefix(cut(family, x)[0])
        more = prefix.continued(torch.tensor([[11, 12, 13]]))
        model(**more | {"position_ids": more["position_ids"]})
        more = prefix.continued(torch.tensor([[11, 12, 13]]))
        with pytest.raises(UnsupportedError, match=r"position ids \[\d+, .*, … do not continue the pruned prompt"):
            model(**more | {"position_ids": more["position_ids"] + 6})
