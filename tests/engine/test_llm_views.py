"""Views inside the language model, and cache eviction, against eager references."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import StaticCache

from tests.helpers.oracles import deepstack_rows, dropped_by, layerwise_masked, masked, merged_inputs
from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import FAMILIES, IMAGE, LAYERS, build, inputs, row
from tests.helpers.tiny import visual as visual_of
from tests.helpers.views import make_view
from uniprune.engine import PromptInfo, attention, prune
from uniprune.errors import PruningError, UnsupportedError, UserError
from uniprune.pruning.view import View

STEPS = 8
family = pytest.mark.parametrize("family", FAMILIES)


@dataclass(frozen=True, kw_only=True)
class Upcoming(Probe):
    @property
    def upcoming_attention(self) -> bool:  # type: ignore[override]
        return True


@dataclass(frozen=True, kw_only=True)
class Evicting(Plan):
    first: int = 1

    def evict_from(self, num_layers: int) -> int | None:
        return self.first


@family
@pytest.mark.parametrize("plan", [{0: 0.5}, {2: 0.5, 3: 0.25}], ids=str)
def test_upcoming_rows_equal_eager(family: str, plan: dict[int, float]) -> None:
    """Layer K's own attention as it would be if nothing were dropped before it; earlier stages count."""
    x = inputs(family, (1, 2))
    probe = Upcoming(look=lambda view: view.upcoming("text"), plan=plan, scope="prompt")
    with prune(build(family), probe) as session:
        generate(build(family), x, 1)
    dropped, reference = dropped_by(session.reports[-1], x), build(family, "eager")
    for (layer, b), got in probe.seen.items():
        earlier = {k: columns for k, columns in dropped.items() if k < layer}
        with masked(reference, earlier), torch.no_grad():
            weights = reference(**x, output_attentions=True).attentions[layer][b]
        arriving = visual_of(x)[b] & ~torch.stack([c[b] for c in earlier.values()] or [~visual_of(x)[b]]).any(0)
        text = x["attention_mask"][b].bool() & (x["input_ids"][b] != IMAGE)
        torch.testing.assert_close(got, weights[:, text][:, :, arriving], atol=1e-5, rtol=1e-4)


@family
def test_blocks_make_up_the_rows(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", 3)
    probe = Probe(
        look=lambda view: (view.attention("text"), list(view.attention.blocks("text"))),
        llm=True,
        layer=1,
        plan={2: 0.5},
    )
    with prune(build(family), probe):
        generate(build(family), inputs(family), 1)
    (rows, blocks), *_ = probe.seen.values()
    assert len(blocks) > 1
    assert torch.equal(torch.cat(blocks, 1), rows)


@family
def test_keys_are_those_of_the_cache(family: str) -> None:
    model, x = build(family), inputs(family, (2, 1))
    probe = Probe(
        look=lambda view: (view.attention.keys("visual"), view.attention.keys(view.after)),
        llm=True,
        layer=1,
        plan={2: 0.5},
        scope="prompt",
    )
    with torch.no_grad():
        plain = model(**x, use_cache=True).past_key_values
        with prune(model, probe):
            model(**x, use_cache=True)
    for b, (visual, after) in enumerate(probe.seen.values()):
        keys = plain.layers[1].keys[b].transpose(0, 1).flatten(1)
        last = int((x["input_ids"][b] == IMAGE).nonzero()[-1])
        torch.testing.assert_close(visual, keys[visual_of(x)[b]], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(after, keys[last + 1 :], atol=1e-6, rtol=1e-5)


@family
def test_embeddings_norm_and_following_text(family: str) -> None:
    """After pruning at layer 1, a view of layer 3 still has the inputs of layer 0 at its tokens."""
    model, x = build(family), inputs(family, (3,))
    probe = Probe(look=lambda view: view, plan={1: 0.5, 3: 0.5})
    with prune(model, probe) as session, torch.no_grad():
        generate(model, x, 1)
    embeds = merged_inputs(model, x)[0][0]
    places, text = visual_of(x)[0].nonzero()[:, 0], (x["input_ids"][0] != IMAGE).nonzero()[:, 0]
    start = 0
    for image, cells in enumerate(session.reports[-1].rows[0].stages[0].kept):
        view = probe.seen[3, image]
        mine = places[start + cells]
        assert torch.equal(view.embedded.tokens, embeds[mine])
        assert torch.equal(view.embedded.text, embeds[text])
        assert torch.equal(text[view.following], text[text > mine[-1]])
        torch.testing.assert_close(view.norm(view.tokens), model.get_decoder().norm(view.tokens))
        start += view.initial


@dataclass(frozen=True, kw_only=True)
class Moving(Probe):
    """A probe that notes its picks: layer -> [k] in their order."""

    picks: dict[int, list[Tensor]] = field(default_factory=dict)

    def select(self, view: View, keep: int) -> Any:
        chosen = super().select(view, keep)
        self.picks.setdefault(view.layer, []).append(chosen)
        return chosen


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "llava_next"])
@torch.no_grad()
def test_a_token_in_another_place_keeps_what_it_is_made_of(family: str) -> None:
    """Its embedding, what the tower has of it, and its tile; two stages have moved the tokens of the third."""

    def parts(view: View) -> list[Tensor]:
        tiles = [] if view.tiles is None else [view.tiles.of]
        return [view.embedded.tokens, view.vision.received(-1)[:, None], view.vision.features(), *tiles]

    model, x = build(family), inputs(family, (2,))
    moving = Moving(plan={0: 0.6, 1: 0.5, 3: 0.3}, look=parts, layers=(-1,), order="release")
    with prune(model, moving):
        model(**x)
    for image in (0, 1):
        own = moving.seen[0, image]
        for layer in (0, 1, 3):
            for found, expected in zip(moving.seen[layer, image], own, strict=True):
                assert torch.equal(found, expected), layer
            own = [one[moving.picks[layer][image]] for one in own]


def test_text_that_does_not_follow_is_a_user_error() -> None:
    with pytest.raises(UserError, match="put the question after the image"):
        _ = make_view(torch.zeros(3, 2)).following


@pytest.mark.parametrize("family", ["llava", "internvl"])
def test_rotary_prior_is_a_sum_of_cosines(family: str) -> None:
    model, x = build(family), inputs(family)
    probe = Probe(look=lambda view: view.attention.rotary_prior("text"), llm=True, layer=1, plan={2: 0.5})
    with prune(model, probe):
        generate(model, x, 1)
    config = model.get_decoder().config
    width = config.hidden_size // config.num_attention_heads
    frequency = config.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2) / width)
    visual = visual_of(x)[0]
    distance = (~visual).nonzero() - visual.nonzero().T
    want = (distance[..., None] * frequency).cos().sum(-1) * 2 / width**0.5
    torch.testing.assert_close(probe.seen[2, 0], want, atol=1e-4, rtol=1e-4)


def test_what_was_not_declared_is_named() -> None:
    probe = Probe(look=lambda view: view.upcoming("last"), plan={2: 0.5})
    with prune(build("llava"), probe), pytest.raises(PruningError, match="upcoming_attention = True"):
        generate(build("llava"), inputs("llava"), 1)


# --- eviction ---------------------------------------------------------------------------------------------------
@family
@pytest.mark.parametrize(("plan", "first"), [({2: 0.5, 4: 0.25}, 1), ({0: 0.75, 3: 0.25}, 0), ({2: 0.5}, 2)], ids=str)
def test_eviction_equals_masking_in_decode_steps(family: str, plan: dict[int, float], first: int) -> None:
    """The prefill is the staged one; afterwards layers from `first` on do not see what was dropped later."""
    model, x = build(family), inputs(family, (2,))
    with prune(model, Evicting(plan=plan, first=first)) as session:
        out = model.generate(
            **x, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    dropped = {k: columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
    forgotten = {min(first, max(dropped)): dropped[max(dropped)]}
    added = deepstack_rows(model, x)
    tokens, logits, _ = layerwise_masked(model, *merged_inputs(model, x), dropped, STEPS, forgotten, added)
    assert out.sequences[0, x["input_ids"].shape[1] :].tolist() == tokens
    torch.testing.assert_close(torch.cat(out.logits), logits, atol=2e-4, rtol=1e-3)
    lengths = [out.past_key_values.get_seq_length(layer) for layer in range(LAYERS)]
    assert set(lengths[first:]) == {x["input_ids"].shape[1] - int(dropped[max(dropped)].sum()) + STEPS - 1}


@family
def test_eviction_in_a_padded_batch_equals_single_rows(family: str) -> None:
    images, samples = (1, 3, 0, 2), tuple(PromptInfo(name) for name in "abcd")
    model, x = build(family), inputs(family, images)
    with prune(model, Evicting(plan={2: 0.5, 4: 0.25})) as session:
        session.samples = samples
        tokens, logits = generate(model, x, STEPS)
        for b, sample in enumerate(samples):
            session.samples = (sample,)
            alone_tokens, alone = generate(model, row(family, x, b, images), STEPS)
            assert torch.equal(alone_tokens[0], tokens[b])
            torch.testing.assert_close(alone[0], logits[b], atol=2e-4, rtol=1e-3)


def test_eviction_refuses_caches_that_cannot_shrink() -> None:
    model, x = build("llava"), inputs("llava")
    cache = StaticCache(config=model.get_decoder().config, max_cache_len=64)
    pruner = Evicting(plan={2: 0.5, 4: 0.25})
    with prune(model, pruner), pytest.raises(UnsupportedError, match="needs a DynamicCache"), torch.no_grad():
        model(**x, past_key_values=cache, use_cache=True)
