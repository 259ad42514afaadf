"""Later turns with new images that are refused by name, because their result would not be exact."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from tests.helpers.tiny import build, fresh_model, inputs
from uniprune.engine import next_turn, prune
from uniprune.engine.compaction import recall
from uniprune.engine.earlier_turns import EarlierTurns, turn_positions
from uniprune.errors import UnsupportedError, UserError
from uniprune.methods.pyramiddrop import PyramidDrop
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.families import find_adapter
from uniprune.pruning.base import Pruner

pytestmark = pytest.mark.end_to_end


@dataclass(frozen=True, kw_only=True)
class Evicting(RandomIntra):
    """Forgets in decoding what it dropped."""

    def evict_from(self, num_layers: int) -> int:
        return 1


REFUSED = {
    "attention of a layer to come": (
        PyramidDrop(ratio=0.5),
        "PyramidDrop reads the attention of a layer that has not run",
    ),
    "eviction": (Evicting(ratio=0.5), "Evicting evicts tokens from the cache"),
    "compact": (RandomPre(ratio=0.5, positions="compact"), "has compact positions"),
}


@pytest.mark.parametrize(("pruner", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_would_not_be_exact_is_refused(pruner: Pruner, reason: str) -> None:
    model, x, turn = build("llava"), inputs("llava"), inputs("llava", seed=1)
    with prune(model, pruner), torch.no_grad():
        cache = model(**x, use_cache=True).past_key_values
        with pytest.raises(UnsupportedError, match=f"images on top of a filled KV cache are not supported .*{reason}"):
            model(**turn, past_key_values=cache)


@pytest.mark.parametrize("family", ["gemma3", "gemma4", "qwen3_5", "llava-mistral"])
def test_so_are_windows_and_linear_attention(family: str) -> None:
    model, x, turn = build(family), inputs(family), inputs(family, seed=1)
    with prune(model, RandomPre(ratio=0.5)), torch.no_grad():
        cache = model(**x, use_cache=True).past_key_values
        with pytest.raises(UnsupportedError, match="this model has layers with windows, linear or two-way attention"):
            model(**turn, past_key_values=cache)


def test_a_turn_that_no_longer_fits_is_refused_by_its_length() -> None:
    model = fresh_model("llava", max_position_embeddings=70)
    x, turn = inputs("llava"), inputs("llava", seed=1)
    own = {name: value for name, value in turn.items() if name != "attention_mask"}
    with prune(model, RandomPre(ratio=0.5)), torch.no_grad():
        cache = model(**x, use_cache=True).past_key_values
        model(**own, past_key_values=cache)
        with pytest.raises(UserError, match=r"the conversation takes \d+ positions, but the model was made for 70"):
            model(**own, past_key_values=cache)


def test_images_that_would_be_counted_as_text_are_refused() -> None:
    """As `generate` counts them of M-RoPE, which keeps the grids from the forward."""
    model, turn = build("qwen2_5_vl"), inputs("qwen2_5_vl", seed=1)
    with prune(model, RandomPre(ratio=0.5)), torch.no_grad():
        cache = model(**inputs("qwen2_5_vl"), use_cache=True).past_key_values
        whole = next_turn(model, turn | {"attention_mask": None}, cache)
        state = recall(cache)
        assert state is not None
        own = {"input_ids": turn["input_ids"], "position_ids": whole["position_ids"]}
        earlier = EarlierTurns.of(state, cache, None, 1)
        assert torch.equal(turn_positions(find_adapter(model), earlier, own), whole["position_ids"])
        own["position_ids"] = whole["position_ids"][:1].expand(3, -1, -1)
        with pytest.raises(UnsupportedError, match=r"images are counted as text, .* uniprune\.engine\.next_turn"):
            turn_positions(find_adapter(model), earlier, own)


def test_a_cache_from_elsewhere_has_no_next_turn() -> None:
    model, x = build("llava"), inputs("llava")
    with torch.no_grad():
        cache = model(**x, use_cache=True).past_key_values
    with pytest.raises(UnsupportedError, match="was not filled in a session"):
        next_turn(model, x, cache)
    turn = {name: value for name, value in x.items() if name != "attention_mask"}
    with prune(model, RandomPre(ratio=0.5)), pytest.raises(UnsupportedError, match="filled outside of a session"):
        model(**turn, past_key_values=cache)


def test_arguments_that_do_not_continue_the_conversation_are_refused() -> None:
    model, x, turn = build("qwen2_5_vl"), inputs("qwen2_5_vl"), inputs("qwen2_5_vl", seed=1)
    own = {name: value for name, value in turn.items() if name != "attention_mask"}
    with prune(model, RandomPre(ratio=0.5)), torch.no_grad():
        cache = model(**x, use_cache=True).past_key_values
        with pytest.raises(UnsupportedError, match=r"the attention_mask of a turn .* is \[1, \d+\]; expected"):
            model(**turn, past_key_values=cache)
        positions = torch.arange(own["input_ids"].shape[1]).expand(3, 1, -1)
        with pytest.raises(UnsupportedError, match="the turn begins at position 0, but the conversation goes on at"):
            model(**own, position_ids=positions, past_key_values=cache)
        own.pop("mm_token_type_ids")
        with pytest.raises(UnsupportedError, match="needs mm_token_type_ids"):
            model(**own, past_key_values=cache)
