"""LLaVA-OneVision: interpolated grids, prompts of several images, videos; what its cells are made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers.onevision import MIXED, NAMES, SIDE, case, model_of, placed
from tests.helpers.oracles import dropped_by, layerwise_masked, masked, merged_inputs, physically_short
from tests.helpers.pruners import Plan, Probe, generate
from tests.modeling.test_flops import counted
from uniprune.engine import prune
from uniprune.engine.vision_batch import supports_sharing
from uniprune.errors import UnsupportedError
from uniprune.methods.divprune import DivPrune
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.random_pre import RandomPre
from uniprune.methods.visionzip import VisionZip
from uniprune.methods.vispruner import VisPruner
from uniprune.modeling.families import find_adapter
from uniprune.models.llava_onevision import TinyLlavaOnevision
from uniprune.pruning.budget import keep_count

pytestmark = pytest.mark.end_to_end

STEPS = 5
cases = pytest.mark.parametrize("name", NAMES)
attentions = pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.exhaustive)])


@cases
@attentions
def test_keeping_everything_is_bit_identical(name: str, attention: str) -> None:
    model, x = model_of(name, attention), case(name).x
    tokens, logits = generate(model, x, STEPS)
    with prune(model, DivPrune()) as session:
        pruned_tokens, pruned_logits = generate(model, x, STEPS)
    assert torch.equal(tokens, pruned_tokens)
    assert torch.equal(logits, pruned_logits)
    assert session.reports[-1].rows[0].grids == case(name).grids


@cases
@attentions
def test_pruning_equals_a_shorter_prompt_and_masking(name: str, attention: str) -> None:
    model, x = model_of(name, attention), case(name).x
    visual_id, tokens = placed(name)
    with prune(model, Plan(plan={0: 0.4})) as session:
        got, logits = generate(model, x, STEPS)
    (dropped,) = dropped_by(session.reports[-1], x, visual_id, tokens=tokens).values()
    want_tokens, want = physically_short(model, *merged_inputs(model, x), ~dropped[0], STEPS)
    assert got[0].tolist() == want_tokens
    assert torch.equal(logits[0], want)
    with prune(model, Plan(plan={0: 0.7, 2: 0.4, 4: 0.1})) as session:
        got, logits = generate(model, x, STEPS)
    stages = {k: columns[0] for k, columns in dropped_by(session.reports[-1], x, visual_id, tokens=tokens).items()}
    want_tokens, want, _ = layerwise_masked(model, *merged_inputs(model, x), stages, STEPS)
    assert got[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["interpolated twice", "video"])
def test_beams_equal_masking(name: str) -> None:
    model, eager, x = model_of(name), model_of(name, "eager"), case(name).x
    options = {"max_new_tokens": STEPS, "do_sample": False, "num_beams": 3}
    with prune(model, RandomPre(ratio=0.5) >> RandomIntra(ratio=0.3, layer=3)) as session:
        got = model.generate(**x, **options)
    with masked(eager, dropped_by(session.reports[-1], x, placed(name)[0], tokens=placed(name)[1])):
        assert torch.equal(got, eager.generate(**x, **options))


def as_packed(name: str, values: Tensor) -> Tensor:
    """[N, C] of the tower's values [tiles, S, C], as the model's own code makes cells of them."""
    model, (_, x, _, tiles) = model_of(name), case(name)
    if "pixel_values_videos" in x:
        pooled: Tensor = model.base_model.apply_pooling(values).flatten(0, 1)
        return pooled
    newline = torch.full(values.shape[-1:], torch.inf)
    ratio = model.config.vision_aspect_ratio
    parts = model.base_model.pack_image_features(values.split(tiles), x["image_sizes"], newline, ratio)[0]
    packed = torch.cat(parts)
    return packed[~packed.isinf().all(-1)]


def pixels_of(name: str) -> Tensor:
    """[tiles, 3, side, side] that the tower gets."""
    x, tiles = case(name).x, case(name).tiles
    if "pixel_values_videos" in x:
        return x["pixel_values_videos"][0]
    return torch.cat([image[:count] for image, count in zip(x["pixel_values"], tiles, strict=True)])


@cases
def test_cells_have_what_the_model_makes_of_their_patches(name: str) -> None:
    """Scores, keys' order, states and features, at cells that are left at a later stage, too."""
    model, eager = model_of(name), model_of(name, "eager")
    with torch.no_grad():
        out = eager.base_model.vision_tower(pixels_of(name), output_attentions=True, output_hidden_states=True)
    want = {
        "hidden": as_packed(name, out.hidden_states[-2]),
        "received": as_packed(name, out.attentions[-1].mean((1, 2))[..., None]),
        "features": as_packed(name, out.hidden_states[-1]),
    }
    vision = lambda vision: {  # noqa: E731
        "hidden": vision.hidden(-1),
        "received": vision.received(-1)[:, None],
        "features": vision.features(),
    }
    probe = Probe(
        look=lambda view: (view.cells, vision(view.vision)), layers=(-1,), plan={0: 0.5, 2: 0.2}, scope="prompt"
    )
    with prune(model, probe):
        generate(model, case(name).x, 1)
    assert len(probe.seen) == 2
    for cells, shown in probe.seen.values():
        for quantity, values in want.items():
            torch.testing.assert_close(shown[quantity], values[cells], atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MIXED)
def test_features_of_mixed_cells_are_not_projected(name: str) -> None:
    """The mean of projected tokens is not the projected mean: refused by name, with what works instead."""
    model, x = model_of(name), case(name).x
    with prune(model, VisionZip(ratio=0.5)), pytest.raises(UnsupportedError, match=r"averages tokens .*space=llm"):
        generate(model, x, 1)
    for method in (VisionZip(ratio=0.5, space="llm"), VisPruner(ratio=0.5)):
        with prune(model, method) as session:
            generate(model, x, 1)
        (entering,) = {count for row in session.reports[-1].rows for count in row.entering}
        assert entering == sum(keep_count(sum(t * h * w for t, h, w in grids), 0.5) for grids in case(name).grids)


def test_features_of_plain_cells_become_the_tokens() -> None:
    """Also of the base tile of an image whose larger grid is interpolated."""
    look = lambda view: (view.tokens, view.project(view.vision.features(), "vision"))  # noqa: E731
    probe = Probe(look=look, layers=(-1,), plan={0: 0.5})
    with prune(model_of("several images"), probe):
        generate(model_of("several images"), case("several images").x, 1)
    only_base = Probe(
        look=lambda view: look(view) if view.grids == [(1, SIDE, SIDE)] else None,
        layers=(-1,),
        plan={0: 0.5},
        scope="grid",
    )
    with prune(model_of("interpolated"), only_base):
        generate(model_of("interpolated"), case("interpolated").x, 1)
    seen = [one for one in (*probe.seen.values(), *only_base.seen.values()) if one is not None]
    assert len(seen) == 3
    for tokens, projected in seen:
        torch.testing.assert_close(projected, tokens, atol=1e-5, rtol=1e-4)


@cases
def test_operations_are_those_torch_counts(name: str) -> None:
    """Tower and projector work on whole tiles and frames, whatever is made of them."""
    ours, theirs = counted(case(name).tiny.model("eager"), RandomPre(ratio=0.5), case(name).x)
    assert ours == theirs


def test_tiles_share_the_cells_between_them() -> None:
    """4 x 5 cells of 2 x 2 tiles of which 8 x 10 tokens are left: rows 2 + 2, columns 3 + 2 (the middle: the first)."""
    with prune(model_of("interpolated"), Plan(plan={0: 0.5}, scope="tile")) as session:
        generate(model_of("interpolated"), case("interpolated").x, 1)
    report = session.reports[-1].rows[0]
    assert report.grids == (((1, 5, 5),), ((1, 2, 3),), ((1, 2, 2),), ((1, 2, 3),), ((1, 2, 2),))
    assert report.encoded == ((1, 5, 5),) * 5


def test_frames_are_tiles() -> None:
    with prune(model_of("video"), Plan(plan={0: 0.5}, scope="tile")) as session:
        generate(model_of("video"), case("video").x, 1)
    report = session.reports[-1].rows[0]
    assert report.grids == (((1, 3, 3),),) * 3
    assert report.markers == [1] * 5
    assert report.encoded == ((1, 5, 5),) * 3


@cases
def test_a_forward_decides_as_generate(name: str) -> None:
    """`generate` encodes before the forward, and keeps sizes and counts to itself."""
    model, x = model_of(name), case(name).x
    with prune(model, VisPruner(ratio=0.4)) as session, torch.no_grad():
        generate(model, x, 1)
        model(**x)
    first, second = (report.rows[0].stages[0].kept for report in session.reports)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.skipif(not supports_sharing(model_of("video")), reason="this transformers takes no features in generate")
def test_shared_features_lead_to_the_same_choice() -> None:
    """Two interpolated images encoded one by one."""
    model, x = model_of("interpolated twice"), dict(case("interpolated twice").x)
    with prune(model, VisPruner(ratio=0.4)) as session, torch.no_grad():
        want, _ = generate(model, x, 3)
        pixels, sizes = x.pop("pixel_values"), x.pop("image_sizes")
        calls = [session.encode({"pixel_values": pixels[i : i + 1], "image_sizes": sizes[i : i + 1]}) for i in (0, 1)]
        got, _ = generate(model, x, 3, mm_encoder_outputs=session.present(calls))
    assert torch.equal(want, got)
    first, second = (report.rows[0].stages[0].kept for report in session.reports)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_sizes_of_larger_grids_are_the_models() -> None:
    """For every size an image may have, at the dimensions of the checkpoints."""
    tiny = TinyLlavaOnevision((27, 27))
    model = tiny.model(hidden_size=16, num_attention_heads=2)
    model.config.image_grid_pinpoints = [[378 * rows, 378 * columns] for rows in range(1, 7) for columns in range(1, 7)]
    adapter = find_adapter(model)
    for size in ((1, 1), (27, 27), (24, 31), (75, 135), (200, 20), (162, 162), (90, 81), (81, 100)):
        pixels = [14 * side for side in size]
        (layout,) = adapter.image_layouts(None, {"image_sizes": [pixels]})
        assert layout.placeholders == adapter.placeholders(size, 1)
        assert layout.placeholders - len(layout.origins) == layout.grids[-1][1]
