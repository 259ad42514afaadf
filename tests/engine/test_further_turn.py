"""Later turns with new images on a pruned cache, against loops over the layers on the whole conversation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from tests.helpers.oracles import dropped_by, gathered_layers
from tests.helpers.pruners import Plan, generate
from tests.helpers.tiny import IMAGE, LAYERS, build, fresh_model, inputs, row, video_inputs
from uniprune.engine import PromptInfo, Session, next_turn, prune
from uniprune.methods.cdpruner import CDPruner
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.pooling import Pooling
from uniprune.methods.prumerge import PruMerge
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.random_pre import RandomPre
from uniprune.methods.random_tower import RandomTower
from uniprune.methods.visionzip import VisionZip
from uniprune.pruning.base import Pruner

pytestmark = pytest.mark.end_to_end

ANSWER = [21, 22, 23, 24]
PLANS = {
    "before": {0: 0.4},
    "inside": {2: 0.5},
    "both": {0: 0.75, 1: 0.5, 4: 0.2},
    "some": {0: 1.0, 3: 0.3},
}
FULL = ("llava", "internvl", "qwen2_5_vl", "llava_next")
MORE = ("qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v", "llava_onevision", "smolvlm", "idefics3", "mistral3")
"""Families whose layers all have full, causal attention; one plan is tried on the latter."""
SEQUENCES = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


class Conversation(NamedTuple):
    """A conversation so far.

    Attributes:
        x: arguments of a forward on all of it.
        keep: K -> [L] True at positions that are left from layer K on.
        cache: the KV cache, of all but the last token.
    """

    x: dict[str, Tensor]
    keep: dict[int, Tensor]
    cache: Any


def joined(x: dict[str, Tensor], y: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a prompt that goes on with another one."""
    found = {}
    for name in {**x, **y}:
        values = [one[name] for one in (x, y) if name in one]
        if name == "pixel_values" and "image_sizes" in {**x, **y}:  # rows of as many tiles
            most = max(value.shape[1] for value in values)
            values = [pad(value, (0,) * 7 + (most - value.shape[1],)) for value in values]
        tiles = name == "pixel_values" and values[0].dim() == 5 and "image_sizes" not in {**x, **y}  # a row per prompt
        found[name] = torch.cat(values, 1 if tiles or name in SEQUENCES else 0)
    return found


def words(ids: list[int], x: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return text as arguments of the form of `x`."""
    tokens = torch.tensor([ids])
    fill = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return {name: fill.get(name, torch.zeros_like(tokens)) for name in SEQUENCES if name in x}


def kept(session: Session, x: dict[str, Tensor]) -> dict[int, Tensor]:
    return {layer: ~lost[0] for layer, lost in dropped_by(session.reports[-1], x).items()}


def extended(keep: dict[int, Tensor], more: dict[int, Tensor], length: int) -> dict[int, Tensor]:
    """Return what is kept of a conversation whose turn of a `length` keeps `more`, or all of it."""
    whole = torch.ones(length, dtype=torch.bool)
    return {layer: torch.cat((own, more.get(layer, whole))) for layer, own in keep.items()}


@torch.no_grad()
def answered(model: Any, talk: Conversation) -> tuple[Conversation, list[Tensor]]:
    """Go on with the words of an answer, of which the last is not in the cache; return the logits of each step.

    The words are given: a model of random weights may write placeholders.
    """
    logits = [model(input_ids=torch.tensor([[one]]), past_key_values=talk.cache).logits[:, -1] for one in ANSWER[:-1]]
    x, keep = joined(talk.x, words(ANSWER, talk.x)), extended(talk.keep, {}, len(ANSWER))
    return Conversation(x, keep, talk.cache), logits


@torch.no_grad()
def begun(session: Session, model: Any, x: dict[str, Tensor], layers: Iterable[int] = ()) -> Conversation:
    """Prefill the first turn."""
    cache = model(**x, use_cache=True).past_key_values
    whole = torch.ones(x["input_ids"].shape[1], dtype=torch.bool)
    keep = kept(session, x) if "pixel_values" in x else dict.fromkeys(layers, whole)
    return answered(model, Conversation(x, keep, cache))[0]


@torch.no_grad()
def further(
    session: Session, model: Any, talk: Conversation, turn: dict[str, Tensor], **options: Any
) -> tuple[Conversation, Tensor]:
    """Go on with a turn and an answer; return the logits of the turn's end and of the answer's steps."""
    new = joined(words(ANSWER[-1:], turn), turn)
    own = {name: value for name, value in new.items() if name != "attention_mask"}
    first = model(**own, **options, past_key_values=talk.cache).logits[:, -1]
    more = {layer: keep[1:] for layer, keep in kept(session, new).items()} if "pixel_values" in turn else {}
    keep = extended(talk.keep, more, turn["input_ids"].shape[1])
    after, rest = answered(model, Conversation(joined(talk.x, turn), keep, talk.cache))
    return after, torch.cat([first, *rest])


def wanted(model: Any, talk: Conversation) -> Tensor:
    """Return the logits of the last turn's end and its answer's steps, by a loop on the whole conversation."""
    ends = {name: value[:, :-1] if name in SEQUENCES else value for name, value in talk.x.items()}
    keep = {layer: own[:-1] for layer, own in talk.keep.items()}
    return gathered_layers(model, ends, keep)[0][0, -len(ANSWER) :]


def cases() -> list[Any]:
    whole = [("qwen2_5_vl", "whole"), ("llava", "whole")]
    return [*((family, name) for family in FULL for name in PLANS), *((family, "both") for family in MORE), *whole]


@pytest.mark.parametrize(("family", "name"), cases())
def test_turns_equal_a_loop_over_the_layers(family: str, name: str) -> None:
    """Images, text, an image: the end of every turn, and the steps after it."""
    model = build(family)
    with prune(model, Plan(plan=PLANS.get(name, {0: 1.0}))) as session:
        talk = begun(session, model, inputs(family))
        for seed, images in ((1, 2), (2, 0), (3, 1)):
            talk, logits = further(session, model, talk, inputs(family, (images,), seed=seed))
            torch.testing.assert_close(logits, wanted(model, talk), atol=3e-4, rtol=1e-3)
    assert len(session.reports) == 3
    assert all(bool(own.all()) for own in talk.keep.values()) == (name == "whole")


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_after_a_first_turn_of_text_an_image_is_pruned(family: str) -> None:
    model, plan = fresh_model(family), PLANS["both"]  # one that was used before has an offset of positions
    with prune(model, Plan(plan=plan)) as session:
        talk = begun(session, model, inputs(family, (0,)), plan)
        talk, logits = further(session, model, talk, inputs(family, (1,), seed=1))
    assert session.reports[-1].pruned
    torch.testing.assert_close(logits, wanted(model, talk), atol=3e-4, rtol=1e-3)


MERGING = {
    "merged": VisionZip(ratio=0.5),
    "recycled": PruMerge(ratio=0.5),
    "pooled": Pooling(ratio=0.25),
    "released": DivPrune(ratio=0.5, order="release"),
    "released twice": DivPrune(ratio=0.5, order="release") >> RandomIntra(ratio=0.3, layer=2, order="release"),
    "by the question": CDPruner(ratio=0.5),
    "by attention": FastV(ratio=0.5, layer=2),
    "by attention, twice": FastV(ratio=0.6, layer=1) >> FastV(ratio=0.3, layer=3),
    "in the tower": RandomTower(ratio=0.5),
    "in the tower, before and inside": RandomTower(ratio=0.6) >> DivPrune(ratio=0.6) >> FastV(ratio=0.5, layer=2),
}


@pytest.mark.parametrize("name", MERGING)
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl"])
def test_a_prompt_in_two_parts_equals_the_prompt_in_one(family: str, name: str) -> None:
    """Words, then the image and the question: tokens that are merged or moved, and the deepstack's features."""
    model, x = fresh_model(family), inputs(family)
    parts = [
        {key: value[:, part] if key in SEQUENCES else value for key, value in x.items() if key != "attention_mask"}
        for part in (slice(None, 3), slice(3, None))
    ]
    step = torch.tensor([[21]])
    with prune(model, MERGING[name]) as session, torch.no_grad():
        cache = model(input_ids=parts[0]["input_ids"], use_cache=True).past_key_values
        got = [model(**parts[1], past_key_values=cache).logits[:, -1]]
        got.append(model(input_ids=step, past_key_values=cache).logits[:, -1])
        out = model(**x, use_cache=True)
        want = [out.logits[:, -1], model(input_ids=step, past_key_values=out.past_key_values).logits[:, -1]]
    torch.testing.assert_close(torch.cat(got), torch.cat(want), atol=3e-4, rtol=1e-3)
    [[apart], [whole]] = (report.rows for report in session.reports[1:])
    assert (apart.entering, apart.positions) == (whole.entering, whole.positions)


@pytest.mark.parametrize("first", [RandomPre(ratio=0.5), RandomTower(ratio=0.5)], ids=["before", "in the tower"])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_rows_of_a_padded_batch_are_rows_alone(family: str, first: Pruner) -> None:
    """Prompts of other lengths, then turns of one length whose images may differ in size, and what is left of them."""
    model, pruner = build(family), first >> RandomIntra(ratio=0.3, layer=3)
    x, turn = inputs(family, (1, 2)), inputs(family, (1,), seed=1)
    both = {name: torch.cat([value, value]) for name, value in turn.items() if name != "attention_mask"}
    with prune(model, pruner) as session, torch.no_grad():
        session.samples = (PromptInfo("a"), PromptInfo("b"))
        cache = model(**x, use_cache=True).past_key_values
        session.samples = (PromptInfo("a"), PromptInfo("b"))
        mask = torch.cat([x["attention_mask"], torch.ones_like(both["input_ids"])], 1)
        logits = [model(**both, attention_mask=mask, past_key_values=cache).logits[:, -1]]
        step = torch.full((2, 1), 21)
        logits.append(model(input_ids=step, past_key_values=cache).logits[:, -1])
        for b, (name, images) in enumerate(zip("ab", (1, 2), strict=True)):
            session.samples = (PromptInfo(name),)
            alone = model(**row(family, x, b, (1, 2)), use_cache=True).past_key_values
            session.samples = (PromptInfo(name),)
            own = {key: value for key, value in turn.items() if key != "attention_mask"}
            want = [model(**own, past_key_values=alone).logits[:, -1]]
            want.append(model(input_ids=step[:1], past_key_values=alone).logits[:, -1])
            for got, expected in zip(logits, want, strict=True):
                torch.testing.assert_close(got[b : b + 1], expected, atol=3e-4, rtol=1e-3)
            assert images


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl", "glm4v"])
def test_generate_goes_on_with_a_turn(family: str) -> None:
    """Of images, then of text."""
    model, x, turn = build(family), inputs(family), inputs(family, (1,), seed=1)
    turn.pop("attention_mask")
    words = {"input_ids": torch.tensor([ANSWER])}
    with prune(model, RandomPre(ratio=0.5)) as session, torch.no_grad():
        caches = [model(**x, use_cache=True).past_key_values for _ in range(2)]
        for part in (turn, words):
            got, logits = generate(model, next_turn(model, part, caches[0]), 4)
            want = [model(**part, past_key_values=caches[1]).logits[:, -1]]
            for one in got[0, :-1]:
                want.append(model(input_ids=one[None, None], past_key_values=caches[1]).logits[:, -1])
            assert torch.equal(got[0], torch.cat(want).argmax(-1))
            torch.testing.assert_close(logits[0], torch.cat(want), atol=3e-4, rtol=1e-3)
    assert len(session.reports) == 4


def test_a_later_turn_may_be_about_a_video() -> None:
    model, x, plan = fresh_model("qwen2_5_vl"), video_inputs(seconds=1.0), PLANS["both"]
    rest = {name: value[:, 2:] if name in SEQUENCES else value for name, value in x.items() if name != "attention_mask"}
    with prune(model, Plan(plan=plan)) as session, torch.no_grad():
        cache = model(input_ids=x["input_ids"][:, :2], use_cache=True).past_key_values
        got = model(**rest, past_key_values=cache).logits
        want = model(**x).logits
    assert session.reports[-2].rows[0].entering == session.reports[-1].rows[0].entering
    torch.testing.assert_close(got[:, -1], want[:, -1], atol=3e-4, rtol=1e-3)


def test_the_report_is_about_the_turn() -> None:
    """Its tokens, their pairs with those of earlier turns, the bytes of their keys and values."""
    model, x, turn = build("llava"), inputs("llava"), inputs("llava", (2,), seed=1)
    own = {name: value for name, value in turn.items() if name != "attention_mask"}
    with prune(model, RandomPre(ratio=0.5)) as session, torch.no_grad():
        cache = model(**x, use_cache=True).past_key_values
        model(**own, past_key_values=cache)
    [[first], [second]] = (report.rows for report in session.reports)
    text = int((turn["input_ids"] != IMAGE).sum())
    assert (first.entering[0], second.entering, second.initial) == (8, [16] * LAYERS, 32)
    assert (second.text, second.tokens) == (text, turn["input_ids"].shape[1])
    assert second.positions == x["input_ids"].shape[1] + turn["input_ids"].shape[1]
    new, held = text + 16, first.lengths[0]
    assert second.pairs == [new * new / 2 + new * held] * LAYERS
    assert first.kv_bytes is not None
    assert second.kv_bytes == first.kv_bytes / held * new
    assert cache.get_seq_length() == new + held
