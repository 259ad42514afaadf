"""Attention that a method reads in a later turn, against the weights that the model itself returns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.pruners import Probe
from tests.helpers.tiny import IMAGE, build, inputs
from uniprune.engine import prune
from uniprune.errors import UnsupportedError
from uniprune.pruning.view import View

pytestmark = pytest.mark.end_to_end

LAYER = 3


def look(view: View) -> tuple[Tensor, ...]:
    attention: Any = view.attention
    return attention("last"), attention("text"), attention("visual"), attention.keys("visual")


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llava", "internvl", "qwen2_5_vl"])
@pytest.mark.parametrize("ratio", [1.0, 0.5], ids=["whole", "pruned before"])
def test_attention_is_the_models_own(family: str, kernel: str, ratio: float) -> None:
    """Its softmax runs over the tokens of earlier turns that are left, too."""
    x, turn = inputs(family), inputs(family, (2,), seed=1)
    turn.pop("attention_mask")
    places = (turn["input_ids"][0] == IMAGE).nonzero()[:, 0]
    text = (turn["input_ids"][0] != IMAGE).nonzero()[:, 0]
    plan, runs = {1: ratio, LAYER: 1.0}, {}
    for name, options in (("own", {"output_attentions": True}), (kernel, {})):
        model = build(family, "eager" if name == "own" else kernel)
        probe = Probe(
            look=look if name == kernel else lambda view: None, llm=True, plan=plan, layer=LAYER, scope="prompt"
        )
        with prune(model, probe), torch.no_grad():
            cache = model(**x, use_cache=True).past_key_values
            held = cache.get_seq_length(LAYER - 1)
            # The turn's own tokens stay, so that columns are those of the prompt.
            plan[1] = 1.0
            out = model(**turn, past_key_values=cache, **options)
            plan[1] = ratio
        runs[name] = out.attentions[LAYER - 1][0] if name == "own" else probe.seen[LAYER, 1]
    weights, (last, from_text, from_visual, keys) = runs["own"], runs[kernel]
    columns = held + places
    torch.testing.assert_close(last[:, 0], weights[:, -1, columns], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(from_text, weights[:, text][..., columns], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(from_visual, weights[:, places][..., columns], atol=1e-5, rtol=1e-4)
    stored = cache.layers[LAYER - 1].keys[0][:, columns].transpose(0, 1).flatten(1)
    torch.testing.assert_close(keys, stored)
    assert held < x["input_ids"].shape[1] or ratio == 1


def test_a_kernel_without_a_mask_of_pairs_is_refused() -> None:
    from uniprune.engine.turn_attention import TurnCapture

    nothing = torch.zeros(1, 1, 1)
    with pytest.raises(UnsupportedError, match="recomputed for the kernels eager and sdpa only"):
        TurnCapture(None, 0, nothing, nothing, nothing, None, None).checked()
