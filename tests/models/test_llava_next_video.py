"""LLaVA-NeXT-Video: videos, whose frames are pooled before the projector."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.oracles import dropped_by, layerwise_masked, merged_inputs, physically_short
from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import VIDEO, build
from tests.modeling.test_flops import counted
from uniprune.engine import prune
from uniprune.methods.divprune import DivPrune
from uniprune.methods.random_pre import RandomPre
from uniprune.methods.visionzip import VisionZip
from uniprune.modeling.tiny import TinyPrompt, tiny_model
from uniprune.pruning.budget import keep_count

pytestmark = pytest.mark.end_to_end

STEPS, FRAMES = 5, 3
SIDES = (4, 5)
attentions = pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.exhaustive)])
sides = pytest.mark.parametrize("side", SIDES)


@cache
def model_of(side: int, attention: str = "sdpa") -> Any:
    return tiny_model("llava_next_video", (side, side)).model(attention)


def video(side: int) -> dict[str, Tensor]:
    """One video; of an odd number of patches per side the last row and column are not seen."""
    tiny, generator = tiny_model("llava_next_video", (side, side)), torch.Generator().manual_seed(0)
    prompt = TinyPrompt((5, 6, 7, *[VIDEO] * (FRAMES * (side // 2) ** 2), 8, 9, 10), (8, 9, 10), ())
    pixels = torch.randn(1, FRAMES, 3, 14 * side, 14 * side, generator=generator)
    return tiny.batch([prompt]) | {"pixel_values_videos": pixels}


@sides
@attentions
def test_keeping_everything_is_bit_identical(side: int, attention: str) -> None:
    model, x = model_of(side, attention), video(side)
    tokens, logits = generate(model, x, STEPS)
    with prune(model, DivPrune()) as session:
        pruned_tokens, pruned_logits = generate(model, x, STEPS)
    assert torch.equal(tokens, pruned_tokens)
    assert torch.equal(logits, pruned_logits)
    report = session.reports[-1].rows[0]
    assert (report.grids, report.markers) == ((((FRAMES, 2, 2),),), [0] * 5)


@sides
@attentions
def test_pruning_equals_a_shorter_prompt_and_masking(side: int, attention: str) -> None:
    model, x = model_of(side, attention), video(side)
    with prune(model, Plan(plan={0: 0.4})) as session:
        got, logits = generate(model, x, STEPS)
    (dropped,) = dropped_by(session.reports[-1], x, VIDEO).values()
    want_tokens, want = physically_short(model, *merged_inputs(model, x), ~dropped[0], STEPS)
    assert got[0].tolist() == want_tokens
    assert torch.equal(logits[0], want)
    with prune(model, Plan(plan={0: 0.7, 2: 0.4, 4: 0.1})) as session:
        got, logits = generate(model, x, STEPS)
    stages = {k: columns[0] for k, columns in dropped_by(session.reports[-1], x, VIDEO).items()}
    want_tokens, want, _ = layerwise_masked(model, *merged_inputs(model, x), stages, STEPS)
    assert got[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=2e-4, rtol=1e-3)


@sides
def test_tokens_have_the_average_of_their_patches(side: int) -> None:
    x, eager = video(side), model_of(side, "eager")
    with torch.no_grad():
        out = eager.base_model.vision_tower(
            x["pixel_values_videos"][0], output_attentions=True, output_hidden_states=True
        )

    def pooled(values: Tensor) -> Tensor:
        """[tokens, C] of [frames, CLS and patches, C]."""
        patches = values[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        return F.avg_pool2d(patches, 2).flatten(2).transpose(1, 2).flatten(0, 1)

    want = {
        "hidden": pooled(out.hidden_states[-2]),
        "importance": pooled(out.attentions[-1][:, :, 0].mean(1)[..., None])[:, 0],
        "features": pooled(out.hidden_states[-2]),
    }
    look = lambda view: (  # noqa: E731
        view.cells,
        {name: getattr(view.vision, name)() for name in ("features",)}
        | {name: getattr(view.vision, name)(-1) for name in ("hidden", "importance")},
        view.vision.patches,
    )
    probe = Probe(look=look, layers=(-1,), plan={0: 0.5, 2: 0.2})
    with prune(model_of(side), probe):
        generate(model_of(side), x, 1)
    assert len(probe.seen) == 2
    for cells, shown, patches in probe.seen.values():
        assert patches == side * side // 4
        for quantity, values in want.items():
            torch.testing.assert_close(shown[quantity], values[cells], atol=5e-5, rtol=1e-4)


@sides
def test_features_become_the_tokens(side: int) -> None:
    """So that methods merge before the projector."""
    look = lambda view: (view.tokens, view.project(view.vision.features(), "vision"))  # noqa: E731
    probe = Probe(look=look, layers=(-1,), plan={0: 0.5})
    with prune(model_of(side), probe):
        generate(model_of(side), video(side), 1)
    ((tokens, projected),) = probe.seen.values()
    torch.testing.assert_close(projected, tokens, atol=1e-5, rtol=1e-4)
    with prune(model_of(side), VisionZip(ratio=0.5)) as session:
        generate(model_of(side), video(side), 1)
    assert session.reports[-1].rows[0].entering == [keep_count(FRAMES * 4, 0.5)] * 5


@sides
def test_frames_are_tiles(side: int) -> None:
    with prune(model_of(side), Plan(plan={0: 0.5}, scope="tile")) as session:
        generate(model_of(side), video(side), 1)
    assert session.reports[-1].rows[0].grids == (((1, 2, 2),),) * FRAMES


@sides
def test_operations_are_those_torch_counts(side: int) -> None:
    """The tower gets whole frames, the projector the pooled ones."""
    model = tiny_model("llava_next_video", (side, side)).model("eager")
    ours, theirs = counted(model, RandomPre(ratio=0.5), video(side))
    assert ours == theirs


def test_images_are_those_of_llava_next() -> None:
    """Their tiles have as many tokens as patches."""
    assert build("llava_next_video").config.spatial_pool_stride == 2
    tiny = tiny_model("llava_next_video")
    with prune(build("llava_next_video"), Plan(plan={0: 0.5})) as session:
        generate(build("llava_next_video"), tiny.batch([tiny.prompt(torch.Generator().manual_seed(0), [(4, 6)])]), 1)
    report = session.reports[-1].rows[0]
    assert (report.grids, report.encoded, report.markers) == ((((1, 4, 4), (1, 4, 6)),), ((1, 4, 4),) * 3, [4] * 5)
