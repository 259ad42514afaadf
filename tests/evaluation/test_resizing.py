"""Runs whose images are resized: tokens, budgets and costs as measured, and the model as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import isqrt
from pathlib import Path

import pytest
import torch
from PIL import Image

from uniprune.engine import prune
from uniprune.errors import UnsupportedError, UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.feature_cache import FeatureCache
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.resizing import check_no_videos, check_resizable
from uniprune.evaluation.runner import Runner
from uniprune.methods import DivPrune, Resize
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, Placement, load
from uniprune.modeling.messages import Part
from uniprune.results.aggregate import ledger
from uniprune.results.predictions import Prediction
from uniprune.results.remarks import ABOVE, BELOW

pytestmark = pytest.mark.end_to_end

FAMILIES = ["llava", "llava-next", "internvl", "qwen2.5-vl", "qwen3-vl"]


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> LoadedModel:
    return load(ModelEntry(name="tiny", source=str(checkpoint(request.param))), Placement("float32", "sdpa", "cpu"))


def rows() -> list[Request]:
    """Rows with one image, another of another shape, none, and two."""
    images = [Image.effect_noise(size, 50).convert("RGB") for size in ((96, 96), (192, 96), (96, 160))]
    shown: list[Sequence[int]] = [(0,), (1,), (), (2, 0), (0,)]
    return [
        Request(
            str(i), partial(list, [*(Part(image=images[n]) for n in row), Part(text=f"which {i}")]), f"which {i}", 2
        )
        for i, row in enumerate(shown)
    ]


REQUESTS = rows()


def predictions(
    loaded: LoadedModel,
    method: str,
    ratio: float = 1.0,
    shared: FeatureCache | None = None,
    batch: int = 3,
    **fields: str,
) -> list[Prediction]:
    pruner = MethodSpec(method, ratio, settings=fields).pruner()
    with Runner(loaded, pruner, batch_size=batch, shared=shared) as runner:
        found = [one for some in runner.predictions(REQUESTS, "data") for one in some]
    assert [one.error for one in found] == [None] * len(REQUESTS)
    return sorted(found, key=lambda one: one.index)


def tokens(one: Prediction) -> int:
    assert one.visual_tokens is not None
    return one.visual_tokens[0]


@pytest.mark.parametrize("ratio", [0.5, 0.25])
def test_fewer_tokens_reach_every_layer_and_the_tower(loaded: LoadedModel, ratio: float) -> None:
    whole, small = predictions(loaded, "none"), predictions(loaded, "resize", ratio)
    for before, after in zip(whole, small, strict=True):
        assert after.initial == before.initial, "counted against the image as it was"
        assert after.visual_tokens == [tokens(after)] * len(after.visual_tokens or [])
        assert after.requested is None
        if not before.initial:
            assert not set(after.remarks) & {BELOW, ABOVE}
            continue
        budget = ratio * before.initial
        if loaded.adapter.model.config.model_type != "llava_next":  # the base tile is always there
            assert tokens(after) <= budget + 1
            assert ABOVE not in after.remarks
            assert before.flops is not None
            assert after.flops is not None
            assert after.flops.vision < before.flops.vision
        assert (BELOW in after.remarks) == (tokens(after) < int(budget))
        assert (ABOVE in after.remarks) == (tokens(after) > budget + 0.5 * 2)
    table = ledger(small)
    assert table is not None
    assert table.adaptive
    assert not table.flagged
    assert (table.initial or 0) > table.average


def test_ratio_1_is_the_un_pruned_model(loaded: LoadedModel) -> None:
    for before, after in zip(predictions(loaded, "none"), predictions(loaded, "resize"), strict=True):
        assert (after.prediction, after.first, after.visual_tokens) == (
            before.prediction,
            before.first,
            before.visual_tokens,
        )
        assert not set(after.remarks) & {BELOW, ABOVE}


def test_batches_and_shared_features_change_nothing(loaded: LoadedModel) -> None:
    alone = predictions(loaded, "resize", 0.25, batch=1)
    shared = FeatureCache(10**8)
    predictions(loaded, "none", shared=shared)
    for found in (predictions(loaded, "resize", 0.25), predictions(loaded, "resize", 0.25, shared)):
        for one, other in zip(alone, found, strict=True):
            assert (one.prediction, one.visual_tokens, one.initial) == (
                other.prediction,
                other.visual_tokens,
                other.initial,
            )


def test_other_methods_prune_what_it_leaves(loaded: LoadedModel) -> None:
    first = predictions(loaded, "resize", 0.5)
    for one, both in zip(first, predictions(loaded, "resize+fastv", 0.25), strict=True):
        assert both.visual_tokens is not None
        assert both.visual_tokens[:2] == [tokens(one)] * 2
        assert abs(both.visual_tokens[2] - tokens(one) / 2) <= 1
        assert both.initial == one.initial


def test_vtc_bench_counts_what_its_shrinking_leaves(loaded: LoadedModel) -> None:
    for before, after in zip(
        predictions(loaded, "none"), predictions(loaded, "resize", 0.25, form="vtc-bench"), strict=True
    ):
        assert after.initial == before.initial
        assert (ABOVE in after.remarks) == (tokens(after) > 0.25 * (before.initial or 0) + 1)
    too_small = [Request("0", partial(list, [Part(image=Image.new("RGB", (96, 2))), Part(text="a")]), "a", 2)]
    with Runner(loaded, Resize(ratio=0.0625, form="vtc-bench"), 1) as runner:
        [[row]] = runner.predictions(too_small, "data")
    assert "an image of 96x2 cannot be shrunk by 4: no pixel is left of a side" in (row.error or "")


def test_the_model_is_as_it_was(loaded: LoadedModel) -> None:
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    predictions(loaded, "resize", 0.25)
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in loaded.adapter.vision.modules())


def test_smaller_squares_get_interpolated_positions(checkpoint: Callable[[str], Path]) -> None:
    """Of the tower's own size they stay as they are; of others they are those of CLIP's own function."""
    loaded = load(ModelEntry(name="tiny", source=str(checkpoint("llava"))), Placement("float32", "sdpa", "cpu"))
    tower, side = loaded.adapter.vision, loaded.adapter.vision.config.image_size
    pixels = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        plain, wanted = tower(pixels), tower(pixels[..., : side // 2, : side // 2], interpolate_pos_encoding=True)
        with loaded.adapter.any_size():
            assert torch.equal(tower(pixels).last_hidden_state, plain.last_hidden_state)
            small = tower(pixels[..., : side // 2, : side // 2])
    assert torch.equal(small.last_hidden_state, wanted.last_hidden_state)
    assert isqrt(small.last_hidden_state.shape[1] - 1) * 2 == side // tower.config.patch_size


def test_processed_inputs_cannot_be_resized(loaded: LoadedModel) -> None:
    for method in (Resize(ratio=0.5), MethodSpec("resize+fastv", 0.5).pruner()):
        with pytest.raises(UnsupportedError, match=r"Resize changes images before they are processed.*after_input"):
            prune(loaded.model, method).__enter__()
        with prune(loaded.model, method.after_input()):
            pass


def test_videos_and_other_models_are_refused_before_a_run(loaded: LoadedModel) -> None:
    videos = [Request("0", list, "", videos=1)]
    with pytest.raises(UserError, match="Resize changes images only, and clips asks about videos"):
        check_no_videos(Resize(ratio=0.5), "clips", videos)
    check_no_videos(DivPrune(ratio=0.5), "clips", videos)
    check_no_videos(Resize(ratio=0.5), "pictures", REQUESTS)
    check_resizable(Resize(ratio=0.5), loaded.adapter.input_forms, loaded.processor)
