"""Images and videos in one prompt: two calls of the tower, placed by ids."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.oracles import (
    deepstack_rows,
    dropped_by,
    gathered_layers,
    layerwise_masked,
    masked,
    merged_inputs,
    physically_short,
)
from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import IMAGE, IMAGE_END, IMAGE_START, VIDEO, build, small
from tests.modeling.test_flops import counted
from uniprune.engine import prune
from uniprune.engine.vision_batch import supports_sharing
from uniprune.errors import UnsupportedError
from uniprune.methods.random_pre import RandomPre

pytestmark = pytest.mark.end_to_end

STEPS = 5
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5")
LINEAR = ("qwen3_5",)
"""In their linear attention nothing can be masked."""
BOTH = (IMAGE, VIDEO)
family = pytest.mark.parametrize("family", QWEN)


def prompt(family: str, order: str, seed: int = 0) -> dict[str, Tensor]:
    """A prompt of pictures of 12 tokens (I), and of clips of two frames of 6 (V), in this order."""
    generator, config = torch.Generator().manual_seed(seed), small(family).adapter.model.config
    values, ids = 3 * 2 * config.vision_config.patch_size**2, [5, 6]
    for kind in order:
        if kind == "I":
            ids += [IMAGE_START, *[IMAGE] * 12, IMAGE_END, 7]
        elif family.startswith("qwen3"):
            ids += [token for stamp in (20, 21) for token in (stamp, IMAGE_START, *[VIDEO] * 6, IMAGE_END)]
        else:
            ids += [IMAGE_START, *[VIDEO] * 12, IMAGE_END]
        ids += [8]
    tokens = torch.tensor([[*ids, 10, 11, 12 + seed]])
    x = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": (tokens == IMAGE).int() + 2 * (tokens == VIDEO).int(),
    }
    for kind, pixels, name, grid in (
        ("I", "pixel_values", "image_grid_thw", [1, 6, 8]),
        ("V", "pixel_values_videos", "video_grid_thw", [2, 4, 6]),
    ):
        if number := order.count(kind):
            x[pixels] = torch.randn(48 * number, values, generator=generator)
            x[name] = torch.tensor([grid] * number)
    return x


@pytest.mark.sample(2)
@family
@pytest.mark.parametrize("order", ["VI", "IVVIV"])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_mixed_prompts_equal_the_references(family: str, order: str, kernel: str) -> None:
    """To the bit: nothing pruned, a shorter prompt, and a loop over the layers; decoding near masked columns."""
    model, x = build(family, kernel), prompt(family, order)
    want = generate(model, x, STEPS)
    with prune(model, Plan(plan={0: 1.0})) as session:
        assert all(map(torch.equal, want, generate(model, x, STEPS)))
    grids = [((1, 3, 4),) if kind == "I" else ((2, 2, 3),) for kind in order]
    assert [group.grids for group in session.reports[-1].rows[0].groups] == grids
    merged, added = merged_inputs(model, x), deepstack_rows(model, x)
    with prune(model, Plan(plan={0: 0.4})) as session:
        tokens, logits = generate(model, x, STEPS)
    keep = ~dropped_by(session.reports[-1], x, BOTH)[0][0]
    short_tokens, short = physically_short(model, *merged, keep, STEPS, added)
    assert tokens[0].tolist() == short_tokens
    assert torch.equal(logits[0], short)
    with prune(model, Plan(plan={0: 0.75, 2: 0.5})) as session:
        tokens, logits = generate(model, x, STEPS)
        with torch.no_grad():
            whole = model(**x).logits  # the tower runs inside the forward
    places = {layer: columns[0] for layer, columns in dropped_by(session.reports[-2], x, BOTH).items()}
    assert all(torch.equal(places[k], v[0]) for k, v in dropped_by(session.reports[-1], x, BOTH).items())
    prefill, steps = gathered_layers(model, x, {layer: ~columns for layer, columns in places.items()}, STEPS)
    assert torch.equal(whole, prefill)
    torch.testing.assert_close(logits[0], steps, atol=2e-4, rtol=1e-3)
    if family not in LINEAR:
        masked_tokens, near, _ = layerwise_masked(model, *merged, places, STEPS, added=added)
        assert tokens[0].tolist() == masked_tokens
        torch.testing.assert_close(logits[0], near, atol=2e-4, rtol=1e-3)


@family
@pytest.mark.parametrize("run", ["generate", "forward"])
def test_scores_are_those_of_each_kind_alone(family: str, run: str) -> None:
    """The tower's quantities of images and clips, at their places in the prompt."""
    model, x = build(family), prompt(family, "VIIV")
    look = lambda view: (view.vision.received(-1), view.tokens, view.project(view.vision.features(), "vision"))  # noqa: E731

    def seen(inputs: dict[str, Tensor]) -> list[tuple[Tensor, ...]]:
        probe = Probe(look=look, layers=(-1,), plan={0: 0.5})
        with prune(model, probe), torch.no_grad():
            generate(model, inputs, 1) if run == "generate" else model(**inputs)
        return list(probe.seen.values())

    mixed = seen(x)
    alone = {}
    for kind, names in (("I", ("pixel_values", "image_grid_thw")), ("V", ("pixel_values_videos", "video_grid_thw"))):
        one = {name: value for name, value in prompt(family, 2 * kind).items() if name not in names}
        alone[kind] = iter(seen(one | {name: x[name] for name in names}))
    for kind, parts in zip("VIIV", mixed, strict=True):
        torch.testing.assert_close(parts[2], parts[1], atol=1e-5, rtol=1e-4)
        for part, want in zip(parts, next(alone[kind]), strict=True):
            torch.testing.assert_close(part, want, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", [name for name in QWEN if name not in LINEAR])
def test_beams_and_batches(family: str) -> None:
    """Beams against masked columns; rows of other kinds against rows alone."""
    model, orders = build(family), ("IV", "V", "VII")
    rows = [prompt(family, order, seed) for seed, order in enumerate(orders)]
    width = max(row["input_ids"].shape[1] for row in rows)
    names = ("input_ids", "attention_mask", "mm_token_type_ids")
    both = {
        name: torch.cat([torch.nn.functional.pad(row[name], (width - row[name].shape[1], 0)) for row in rows])
        for name in names
    }
    visual = {name: [row[name] for row in rows if name in row] for row in rows for name in row if name not in names}
    both |= {name: torch.cat(values) for name, values in visual.items()}
    with prune(model, RandomPre(ratio=0.5)) as session:
        logits = generate(model, both, STEPS)[1]
    lost = dropped_by(session.reports[-1], both, BOTH)
    reference = build(family, "eager")
    with masked(reference, lost):
        torch.testing.assert_close(logits, generate(reference, both, STEPS)[1], atol=2e-4, rtol=1e-3)
    if not supports_sharing(model):
        pytest.skip("this transformers repeats the images of a prompt one by one for beams")
    x, options = rows[0], {"max_new_tokens": STEPS, "do_sample": False, "num_beams": 3}
    with prune(model, RandomPre(ratio=0.5)) as session:
        got = model.generate(**x, **options)
    with masked(reference, dropped_by(session.reports[-1], x, BOTH)):
        assert torch.equal(got, reference.generate(**x, **options))


@pytest.mark.parametrize("family", QWEN[:3])
def test_operations_are_those_torch_counts(family: str) -> None:
    model = build(family, "eager")
    ours, theirs = counted(model, RandomPre(ratio=0.5), prompt(family, "VI"))
    assert ours == theirs


def test_what_cannot_be_placed_is_refused() -> None:
    x = prompt("qwen2_vl", "VI")
    with (
        prune(build("glm4v"), RandomPre(ratio=0.5)),
        pytest.raises(UnsupportedError, match="in one prompt are not supported with Glm4v"),
    ):
        build("glm4v")(**x)
    model = build("qwen2_5_vl")
    with torch.no_grad():
        image = model.get_image_features(x["pixel_values"], x["image_grid_thw"], return_dict=True)
        video = model.get_video_features(x["pixel_values_videos"], x["video_grid_thw"], return_dict=True)
    rest = {name: value for name, value in x.items() if not name.startswith("pixel_values")}
    with prune(model, Plan(plan={0: 0.5})) as session:  # made elsewhere: runs of unknown grids
        model(**rest, mm_encoder_outputs={"image": image, "video": video})
    assert [group.grids for group in session.reports[-1].rows[0].groups] == [((1, 1, 12),)] * 2
