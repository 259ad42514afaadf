"""Positions of the question that a caller gives: counted without padding, and right after earlier stages."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.oracles import dropped_by, masked
from tests.helpers.pruners import Probe, generate
from tests.helpers.tiny import FAMILIES, build, inputs
from tests.helpers.tiny import visual as tokens_of
from uniprune.engine import PromptInfo, prune
from uniprune.errors import UserError

PLACES = torch.tensor([1, -5, -3])
"""In every prompt: one word before the image, two near the end."""


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_from_given_positions(family: str) -> None:
    x = inputs(family, (1, 2))
    real = x["attention_mask"].bool()
    assert not real.all()
    lengths = real.sum(1)
    infos = tuple(
        PromptInfo(name, torch.tensor([7]), PLACES % length) for name, length in zip("ab", lengths, strict=True)
    )
    probe = Probe(look=lambda view: view.attention("prompt"), llm=True, layer=1, plan={1: 0.5, 3: 0.25}, scope="prompt")
    with prune(build(family), probe) as session:
        session.samples = infos
        generate(build(family), x, 1)
    reference, dropped = build(family, "eager"), dropped_by(session.reports[-1], x)
    with masked(reference, dropped), torch.no_grad():
        weights = reference(**x, output_attentions=True).attentions
    visual = tokens_of(x)
    assert set(probe.seen) == {(layer, b) for layer in (1, 3) for b in (0, 1)}
    for (layer, b), got in probe.seen.items():
        arriving = visual[b] & ~torch.stack([d[b] for k, d in dropped.items() if k < layer] or [~visual[b]]).any(0)
        queries = real[b].nonzero()[PLACES, 0]
        torch.testing.assert_close(got, weights[layer - 1][b][:, queries][:, :, arriving], atol=1e-5, rtol=1e-4)


def test_positions_alone_give_the_questions_embeddings() -> None:
    model, x = build("llava"), inputs("llava", (1, 2))
    probe = Probe(look=lambda view: view.prompt, plan={0: 0.5}, scope="prompt")
    with prune(model, probe) as session:
        session.samples = (
            PromptInfo("a", None, torch.tensor([1, 2])),
            PromptInfo("b", torch.tensor([]), torch.tensor([3])),
        )
        generate(model, x, 1)
    rows = [ids[mask.bool()] for ids, mask in zip(x["input_ids"], x["attention_mask"], strict=True)]
    table = model.get_input_embeddings()
    assert torch.equal(probe.seen[0, 0], table(rows[0][1:3]))
    assert torch.equal(probe.seen[0, 1], table(rows[1][3:4]))


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([40, 400], "positions of sample 'a' are 40 to 400, but the prompt has 31 tokens; count from 0"),
        ([-1, 3], "positions of sample 'a' are -1 to 3, but the prompt has 31 tokens"),
        ([], "reads attention from the question, but sample 'a' has no text after its first image"),
    ],
)
def test_positions_that_name_no_token_are_refused(places: list[int], message: str) -> None:
    probe = Probe(look=lambda view: view.attention("prompt"), llm=True, layer=1, plan={1: 0.5})
    x = inputs("llava")
    with prune(build("llava"), probe) as session, pytest.raises(UserError, match=message):
        session.samples = (PromptInfo("a", None, torch.tensor(places, dtype=torch.long)),)
        generate(build("llava"), x, 1)
