"""LLaVA-OneVision and LLaVA-NeXT-Video: an image and a video in one prompt, each with what its encoder was given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.oracles import dropped_by, layerwise_masked, merged_inputs, physically_short
from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import IMAGE, VIDEO, build, small
from tests.modeling.test_flops import counted
from uniprune.engine import prune
from uniprune.methods.random_pre import RandomPre

pytestmark = pytest.mark.end_to_end

STEPS, FRAMES = 5, 3
NEWLINES = {"llava_onevision": 1, "llava_next_video": 0}
"""Of a video of each family."""
GRIDS = {"I": ((1, 4, 4), (1, 4, 6)), "V": ((FRAMES, 2, 2),)}
family = pytest.mark.parametrize("family", NEWLINES)


def prompt(family: str, order: str = "VI") -> dict[str, Tensor]:
    """An image of 4 x 6 tokens beside its base tile (I), and a video of three frames of 2 x 2 (V), in this order."""
    tiny, generator = small(family), torch.Generator().manual_seed(0)
    tokens = {"I": [IMAGE] * (16 + 4 * 7), "V": [VIDEO] * (FRAMES * 4 + NEWLINES[family])}
    ids = torch.tensor([[5, 6, *(token for kind in order for token in [*tokens[kind], 7, 8]), 9, 10]])
    pixels = torch.randn(1, FRAMES, 3, tiny.size[0] * 14, tiny.size[1] * 14, generator=generator)
    image = tiny.adapter.random_image((4, 6), 1, generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": pixels, **image}


def tokens_of(model: torch.nn.Module, x: dict[str, Tensor]) -> Tensor:
    """[1, L] True at placeholders that hold no newline."""
    newline = (merged_inputs(model, x)[0] == model.base_model.image_newline).all(-1)
    return ((x["input_ids"] == IMAGE) | (x["input_ids"] == VIDEO)) & ~newline


@family
@pytest.mark.parametrize("order", ["VI", "IV"])
def test_mixed_prompts_equal_the_references(family: str, order: str) -> None:
    model, x = build(family), prompt(family, order)
    want = generate(model, x, STEPS)
    with prune(model, Plan(plan={0: 1.0})) as session:
        assert all(map(torch.equal, want, generate(model, x, STEPS)))
    assert session.reports[-1].rows[0].grids == tuple(GRIDS[kind] for kind in order)
    merged, tokens = merged_inputs(model, x), tokens_of(model, x)
    with prune(model, Plan(plan={0: 0.4})) as session:
        got, logits = generate(model, x, STEPS)
    dropped = dropped_by(session.reports[-1], x, IMAGE, VIDEO, tokens=tokens)
    short_tokens, short = physically_short(model, *merged, ~dropped[0][0], STEPS)
    assert got[0].tolist() == short_tokens
    assert torch.equal(logits[0], short)
    with prune(model, Plan(plan={0: 0.75, 2: 0.5})) as session:
        got, logits = generate(model, x, STEPS)
    stages = {k: v[0] for k, v in dropped_by(session.reports[-1], x, IMAGE, VIDEO, tokens=tokens).items()}
    masked_tokens, near, _ = layerwise_masked(model, *merged, stages, STEPS)
    assert got[0].tolist() == masked_tokens
    torch.testing.assert_close(logits[0], near, atol=2e-4, rtol=1e-3)


@family
@pytest.mark.parametrize("run", ["generate", "forward"])
def test_scores_are_those_of_each_alone(family: str, run: str) -> None:
    model, x = build(family), prompt(family)

    def seen(inputs: dict[str, Tensor]) -> list[tuple[Tensor, ...]]:
        look = lambda view: (view.vision.received(-1), view.vision.hidden(-1), view.vision.features())  # noqa: E731
        probe = Probe(look=look, layers=(-1,), plan={0: 0.5})
        with prune(model, probe), torch.no_grad():
            generate(model, inputs, 1) if run == "generate" else model(**inputs)
        return list(probe.seen.values())

    video, image = seen(x)
    for got, name, kind in ((video, "pixel_values_videos", VIDEO), (image, "pixel_values", IMAGE)):
        other = IMAGE if kind == VIDEO else VIDEO
        left = x["input_ids"] != other
        ids = x["input_ids"][left][None]
        alone = {"input_ids": ids, "attention_mask": torch.ones_like(ids), name: x[name]}
        ((*want,),) = seen(alone | ({"image_sizes": x["image_sizes"]} if kind == IMAGE else {}))
        for one, another in zip(got, want, strict=True):
            torch.testing.assert_close(one, another, atol=1e-6, rtol=1e-5)


@family
def test_operations_are_those_torch_counts(family: str) -> None:
    ours, theirs = counted(build(family, "eager"), RandomPre(ratio=0.5), prompt(family))
    assert ours == theirs
