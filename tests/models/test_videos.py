"""Videos: clips of one run or of many, several in a prompt, their scopes, scores and deepstack rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.oracles import (
    deepstack_rows,
    dropped_by,
    gathered_layers,
    layerwise_masked,
    merged_inputs,
    physically_short,
)
from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import IMAGE, IMAGE_END, IMAGE_START, VIDEO, build, stamped_videos
from uniprune.engine import prune
from uniprune.errors import UnsupportedError
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.image_grouping import ClipsOfGrids, ClipsOverRuns, EncodedPrompt

pytestmark = pytest.mark.end_to_end

STEPS = 5
CLIPS = ((3, 2, 3), (2, 4, 2))
"""Tokens of the two clips of a prompt."""
STAMPED = ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "glm4v", "glm4v_moe", "glm46v")
QWEN = ("qwen2_vl", "qwen2_5_vl")


def videos(family: str) -> dict[str, Tensor]:
    """A prompt of two clips: of one run each, or with time stamps between their frames."""
    x = stamped_videos(family)
    if family in STAMPED:
        return x
    ids = [5, 6]
    for t, h, w in CLIPS:
        ids += [IMAGE_START, *[VIDEO] * (t * h * w), IMAGE_END, 8, 9]
    tokens = torch.tensor([[*ids, 10, 11, 12]])
    return x | {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": (tokens == VIDEO).int() * 2,
        "second_per_grid_ts": torch.tensor([1.0, 9.0]),
    }


def dropped(report: Any, x: dict[str, Tensor]) -> dict[int, Tensor]:
    places = dropped_by(report, x, IMAGE, VIDEO)
    return {layer: columns[0] for layer, columns in places.items()}


@pytest.mark.sample(2)
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("family", [*STAMPED, *QWEN])
def test_clips_equal_the_references(family: str, kernel: str) -> None:
    """To the bit: nothing pruned, a shorter prompt, and a loop over the layers; decoding near masked columns."""
    model, x = build(family, kernel), videos(family)
    if family in QWEN:
        x.pop("second_per_grid_ts") if family == "qwen2_vl" else None
    want = generate(model, x, STEPS)
    with prune(model, Plan(plan={0: 1.0})) as session:
        assert all(map(torch.equal, want, generate(model, x, STEPS)))
    assert [group.grids for group in session.reports[-1].rows[0].groups] == whole_clips(family)
    inputs, added = merged_inputs(model, x), deepstack_rows(model, x)
    assert len(added) == (3 if family.startswith("qwen3_vl") else 0)
    with prune(model, Plan(plan={0: 0.4})) as session:
        tokens, logits = generate(model, x, STEPS)
    short_tokens, short = physically_short(model, *inputs, ~dropped(session.reports[-1], x)[0], STEPS, added)
    assert tokens[0].tolist() == short_tokens
    assert torch.equal(logits[0], short)
    with prune(model, Plan(plan={0: 0.75, 1: 0.5, 4: 0.2})) as session:
        tokens, logits = generate(model, x, STEPS)
        with torch.no_grad():
            prompt = model(**x).logits
    places = dropped(session.reports[-2], x)
    want_prompt, steps = gathered_layers(model, x, {layer: ~columns for layer, columns in places.items()}, STEPS)
    assert torch.equal(prompt, want_prompt)
    torch.testing.assert_close(logits[0], steps, atol=2e-4, rtol=1e-3)
    if family != "qwen3_5":  # in linear attention nothing can be masked
        masked_tokens, masked, _ = layerwise_masked(model, *inputs, places, STEPS, added=added)
        assert tokens[0].tolist() == masked_tokens
        torch.testing.assert_close(logits[0], masked, atol=2e-4, rtol=1e-3)


def whole_clips(family: str) -> list[Any]:
    return [((1, h, w),) * t if family.startswith("glm") else ((t, h, w),) for t, h, w in CLIPS]


@pytest.mark.parametrize("family", [*STAMPED, *QWEN])
@pytest.mark.parametrize("scope", ["image", "prompt", "grid", "tile"])
def test_scopes_are_prompt_clip_and_frame(family: str, scope: Any) -> None:
    model, x = build(family), videos(family)
    with prune(model, Plan(plan={0: 0.5}, scope=scope)) as session, torch.no_grad():
        model(**x)
    [row] = session.reports[-1].rows
    clips = whole_clips(family)
    frames = [((1, h, w),) for t, h, w in CLIPS for _ in range(t)]
    grids = {"image": clips, "prompt": [(*clips[0], *clips[1])]}.get(scope, frames)
    assert [group.grids for group in row.groups] == grids
    sizes = {"image": [18, 16], "prompt": [34]}.get(scope, [6] * 3 + [8] * 2)
    assert [len(kept) for kept in row.stages[0].kept] == [size // 2 for size in sizes]
    assert row.entering == [17] * 5


@pytest.mark.parametrize("family", [*STAMPED, *QWEN])
def test_scores_of_a_frame_are_those_of_the_frame_as_an_image(family: str) -> None:
    """No tower attends from frame to frame, and a budget per frame reads the same scores as one per clip."""
    model, x = build(family), videos(family)
    look = lambda view: (view.vision.received(-1), view.tokens, view.project(view.vision.features(), "vision"))  # noqa: E731
    seen = {}
    for scope in ("image", "grid"):
        probe = Probe(look=look, layers=(-1,), plan={0: 0.5}, scope=scope)  # type: ignore[arg-type]
        with prune(model, probe), torch.no_grad():
            model(**x)
        seen[scope] = list(probe.seen.values())
    for part in range(3):
        whole = torch.cat([values[part] for values in seen["image"]])
        assert torch.equal(whole, torch.cat([values[part] for values in seen["grid"]]))
    for _, tokens, projected in seen["grid"]:
        torch.testing.assert_close(projected, tokens, atol=1e-5, rtol=1e-4)
    grids = x["video_grid_thw"].repeat_interleave(x["video_grid_thw"][:, 0], 0)
    grids[:, 0] = 1
    runs = [[IMAGE_START, *[IMAGE] * (h * w // 4), 7] for _, h, w in grids.tolist()]
    ids = torch.tensor([[token for run in runs for token in run] + [8]])
    images = {"pixel_values": x["pixel_values_videos"], "image_grid_thw": grids}
    probe = Probe(look=look, layers=(-1,), plan={0: 0.5})
    with prune(model, probe), torch.no_grad():
        model(input_ids=ids, mm_token_type_ids=(ids == IMAGE).int(), **images)
    for frame, image in zip(seen["grid"], probe.seen.values(), strict=True):
        torch.testing.assert_close(frame[0], image[0], atol=1e-6, rtol=1e-5)


def test_rows_of_a_batch_are_rows_alone() -> None:
    """Clips between time stamps, of other lengths, on the left of padding."""
    model, x = build("qwen3_vl"), videos("qwen3_vl")
    other = stamped_videos("qwen3_vl", ((2, 4, 8),))
    pad = x["input_ids"].shape[1] - other["input_ids"].shape[1]
    both = {name: torch.cat((x[name], torch.nn.functional.pad(other[name], (pad, 0)))) for name in
            ("input_ids", "attention_mask", "mm_token_type_ids")}  # fmt: skip
    both |= {name: torch.cat((x[name], other[name])) for name in ("pixel_values_videos", "video_grid_thw")}
    pruner = RandomPre(ratio=0.5)
    with prune(model, pruner) as session:
        _, logits = generate(model, both, STEPS)
        alone = generate(model, x, STEPS)[1]
    torch.testing.assert_close(logits[:1], alone, atol=2e-4, rtol=1e-3)
    assert [[group.grids for group in row.groups] for row in session.reports[0].rows] == [
        whole_clips("qwen3_vl"),
        [((2, 2, 4),)],
    ]


# --- what belongs together ------------------------------------------------------------------------------------------
def test_frames_between_marks_are_a_clip() -> None:
    ids = torch.tensor([1, 9, 2, 9, 7, 9, 3, 9, 8, 4, 7, 9, 8, 9, 5])  # 9: placeholder, 7 and 8: marks of clips
    prompt = EncodedPrompt(0, ids, (ids == 9).nonzero()[:, 0], [1] * 6, True)
    assert ClipsOfGrids(7, 8)(prompt) == [1, 1, 2, 1, 1]
    with pytest.raises(UnsupportedError, match="does not show which frames make up a clip"):
        ClipsOfGrids(7, 8)(EncodedPrompt(0, None, prompt.places, prompt.sizes, True))


def test_clips_whose_features_come_from_outside_are_refused() -> None:
    """Their runs of placeholders do not show what belongs together; images are runs in any case."""
    model, x = build("qwen3_vl"), videos("qwen3_vl")
    with torch.no_grad():
        features = model.get_video_features(x["pixel_values_videos"], x["video_grid_thw"], return_dict=True)
    rest = {name: value for name, value in x.items() if name != "pixel_values_videos"}
    with (
        prune(model, RandomPre(ratio=0.5)),
        pytest.raises(UnsupportedError, match="unknown which frames make up a clip"),
    ):
        model(**rest, mm_encoder_outputs={"video": features})
    images = EncodedPrompt(0, torch.tensor([1, IMAGE, IMAGE, 2, IMAGE]), torch.tensor([1, 2, 4]), [2, 1], False)
    assert ClipsOverRuns(VIDEO)(images) == [1, 1]
