"""Every way of decoding: beams, sampling, hand-written loops, second turns, static caches, no cache, copied caches."""

import copy
from typing import Any

import pytest
import torch
from transformers import DynamicCache, set_seed

from tests.helpers.oracles import dropped_by, masked
from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import FAMILIES, INTERLEAVES_BEAMS, VIDEO, build, inputs, video_inputs
from uniprune.engine import PromptInfo, prune
from uniprune.errors import UnsupportedError
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.random_pre import RandomPre
from uniprune.pruning.base import Pruner

pytestmark = pytest.mark.end_to_end

STEPS = 10
GREEDY = {"max_new_tokens": STEPS, "do_sample": False}
MODES = {
    "beams": {"num_beams": 3, "length_penalty": 1.0},
    "beams-returned": {"num_beams": 4, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "temperature": 0.7, "num_return_sequences": 3},
}
PRUNERS = {
    "pre": RandomPre(ratio=0.25),
    "intra": RandomIntra(ratio=0.25),
    "both": RandomPre(ratio=0.5) >> RandomIntra(ratio=0.3, layer=3),
}
family = pytest.mark.parametrize("family", FAMILIES)
pruner_name = pytest.mark.parametrize("name", PRUNERS)


@pytest.mark.sample(2)
@family
@pruner_name
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("images", [(1,), (2, 1)], ids=str)
def test_beams_and_sampling_equal_masking(family: str, name: str, mode: str, images: tuple[int, ...]) -> None:
    """Random choices are made once per prompt: the reference masks one choice for all copies of a row."""
    if INTERLEAVES_BEAMS and not family.startswith("qwen") and len(images) > 1:
        pytest.skip("this version of transformers mixes up the images of beams, with or without pruning")
    model, x, options = build(family), inputs(family, images), {**GREEDY, **MODES[mode]}
    with prune(model, PRUNERS[name]) as session:
        set_seed(3)
        got = model.generate(**x, **options)
    report = session.reports[-1]
    assert len(report.rows) == len(images)
    reference = build(family, "eager")
    with masked(reference, dropped_by(report, x)):
        set_seed(3)
        want = reference.generate(**x, **options)
    assert torch.equal(got, want)
    set_seed(3)
    assert not torch.equal(got, model.generate(**x, **options))


@family
@pytest.mark.parametrize("given", [False, True], ids=["default-ids", "given-ids"])
def test_beams_decide_once_per_prompt(family: str, given: bool) -> None:
    model, x = build(family), inputs(family, (1, 1))
    look = Probe(look=lambda view: view.vision.received(-1), layers=(-1,), plan={1: 0.5})
    with prune(model, look) as session:
        session.samples = (PromptInfo("a"), PromptInfo("b")) if given else ()
        model.generate(**x, **GREEDY, num_beams=3)
        assert len(look.seen) == 2
        assert [r.sample for r in session.reports[-1].rows] == (["a", "b"] if given else ["0", "1"])
        beams = list(look.seen.values())
        look.seen.clear()
        model.generate(**x, **GREEDY)
    for one, many in zip(look.seen.values(), beams, strict=True):
        torch.testing.assert_close(one, many)


def loop(model: Any, x: dict[str, torch.Tensor], style: str) -> torch.Tensor:
    """Return the step logits of a hand-written greedy loop."""
    y = dict(x)
    mask = y.pop("attention_mask")
    if style == "mask":
        y["attention_mask"] = mask
    cache = DynamicCache(config=model.get_decoder().config) if style == "own-cache" else None
    out = model(**y, past_key_values=cache, use_cache=True)
    steps = [out.logits[:, -1]]
    for _ in range(STEPS - 1):
        more = {}
        if style == "mask":
            mask = torch.cat([mask, mask.new_ones(1, 1)], 1)
            more["attention_mask"] = mask
        token = steps[-1].argmax(-1, keepdim=True)
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True, **more)
        steps.append(out.logits[:, -1])
    return torch.stack(steps, 1)


@pytest.mark.sample(2)
@family
@pruner_name
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("style", ["mask", "bare", "own-cache"])
def test_hand_written_loop(family: str, name: str, attention: str, style: str) -> None:
    model, x = build(family, attention), inputs(family)
    with prune(model, PRUNERS[name]), torch.no_grad():
        _, logits = generate(model, x, STEPS)
        torch.testing.assert_close(loop(model, x, style), logits, atol=1e-5, rtol=1e-5)


@pruner_name
def test_loop_continues_after_the_largest_position(name: str) -> None:
    """The last frame of a sparse video has a later position than the text after it."""
    model, x = build("qwen2_5_vl", "eager"), video_inputs(seconds=30.0)
    with prune(model, PRUNERS[name]) as session, torch.no_grad():
        got = loop(model, x, "bare")
    with masked(model, dropped_by(session.reports[0], x, VIDEO)), torch.no_grad():
        torch.testing.assert_close(got, loop(model, x, "bare"), atol=1e-5, rtol=1e-5)
    assert session.reports[0].rows[0].positions > x["input_ids"].shape[1]


@family
@pruner_name
def test_second_turn(family: str, name: str) -> None:
    """A second text turn on the pruned cache, whether the caller passes the new ids only or the whole conversation."""
    model, x, extra = build(family), inputs(family), torch.tensor([[11, 12, 13, 14]])
    with prune(model, PRUNERS[name]) as session:
        first = model.generate(**x, **GREEDY, return_dict_in_generate=True)
        ids = torch.cat([first.sequences, extra], 1)
        new, mask = ids[:, -extra.shape[1] - 1 :], torch.ones_like(ids)
        again = copy.deepcopy(first.past_key_values)
        second = model.generate(input_ids=new, attention_mask=mask, past_key_values=first.past_key_values, **GREEDY)
        full = model.generate(input_ids=ids, attention_mask=mask, past_key_values=again, **GREEDY)
    reference = build(family, "eager")
    with masked(reference, dropped_by(session.reports[0], x)):
        out = reference.generate(**x, **GREEDY, return_dict_in_generate=True)
        want = reference.generate(input_ids=new, attention_mask=mask, past_key_values=out.past_key_values, **GREEDY)
    assert torch.equal(second, want)
    assert torch.equal(full[:, ids.shape[1] :], want[:, new.shape[1] :])


@family
@pytest.mark.parametrize("pruner", [DivPrune(ratio=0.3), FastV(ratio=0.3)], ids=["pre", "intra"])
def test_copied_cache_continues(family: str, pruner: Pruner) -> None:
    """One prefill, several continuations: a deep copy of the cache carries its pruning."""
    model, x = build(family), inputs(family)
    with prune(model, pruner), torch.no_grad():
        tokens, logits = generate(model, x, 2)
        cache = model(**x, use_cache=True).past_key_values
        for continued in (copy.deepcopy(cache), cache):
            out = model(input_ids=tokens[:, :1], past_key_values=continued)
            torch.testing.assert_close(out.logits[:, -1], logits[:, 1], atol=1e-5, rtol=1e-5)


@family
@pruner_name
def test_prompt_lookup_decoding(family: str, name: str) -> None:
    model, x = build(family), inputs(family)
    with prune(model, PRUNERS[name]):
        want = model.generate(**x, **GREEDY)
        assert torch.equal(want, model.generate(**x, **GREEDY, prompt_lookup_num_tokens=2))


@pytest.mark.sample(2)
@family
@pruner_name
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("images", [(1,), (1, 2)], ids=str)
def test_static_cache(family: str, name: str, attention: str, images: tuple[int, ...]) -> None:
    model, x = build(family, attention), inputs(family, images)
    with prune(model, PRUNERS[name]):
        want = model.generate(**x, **GREEDY)
        assert torch.equal(want, model.generate(**x, **GREEDY, cache_implementation="static"))


@family
def test_without_a_cache(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding is refused; in a single forward, gaps in positions do not count as packed sequences."""
    model, x = build(family), inputs(family)
    with prune(model, PRUNERS["both"]) as session, torch.no_grad():
        with pytest.raises(UnsupportedError, match="use_cache=False cannot be used while pruning"):
            model.generate(**x, **GREEDY, use_cache=False)
        assert session.reports == []
        want = model(**x, use_cache=True).logits
        monkeypatch.setattr(model.config.get_text_config(), "use_cache", False)
        bare = {name: value for name, value in x.items() if name != "attention_mask"}
        torch.testing.assert_close(want, model(**bare).logits)


@family
def test_generated_image_tokens_are_text(family: str) -> None:
    """A model may generate the id of the image placeholder; the next forward must not take it for an image."""
    model, x = build(family), inputs(family)
    with prune(model, Plan(plan={2: 0.5})), torch.no_grad():
        cache = model(**x, use_cache=True).past_key_values
        out = model(input_ids=torch.tensor([[model.config.image_token_id]]), past_key_values=cache)
    assert out.logits.shape[1] == 1


@family
def test_features_encoded_by_the_caller(family: str) -> None:
    """The same choice whether images are encoded before the forward, inside it, or by the caller."""
    model, x = build(family), inputs(family, (2, 1))
    look = Probe(look=lambda view: view.vision.received(-1), layers=(-1,), plan={0: 0.5})
    names = [name for name in ("pixel_values", "image_grid_thw", "image_sizes") if name in x]
    with prune(model, look) as session, torch.no_grad():
        model.generate(**x, **GREEDY)
        model(**x)
        by_generate, by_forward = (dropped_by(report, x)[0] for report in session.reports)
        assert torch.equal(by_generate, by_forward)
        if INTERLEAVES_BEAMS:
            return
        features = model.get_image_features(**{name: x[name] for name in names}, return_dict=True)
        rest = {name: value for name, value in x.items() if name not in ("pixel_values", "image_sizes")}
        model(**rest, mm_encoder_outputs={"image": features})
        assert torch.equal(by_generate, dropped_by(session.reports[-1], x)[0])
        model.get_image_features(**{name: x[name] for name in names} | {"pixel_values": -x["pixel_values"]})
        with pytest.raises(Exception, match="outside this session"):
            model(**rest, mm_encoder_outputs={"image": features})
