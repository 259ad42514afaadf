"""The cost model against counts that are not ours: torch's own counter, and closed forms of published models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.tiny import FAMILIES, build, inputs, tiny_model, video_inputs
from uniprune.engine import prune
from uniprune.errors import UserError
from uniprune.methods.none import NoPruning
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.random_pre import RandomPre
from uniprune.methods.random_tower import RandomTower
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.context import reusing_layers
from uniprune.modeling.families import find_adapter
from uniprune.modeling.flops import CostModel, width
from uniprune.modeling.random_weights import architectures, random_model
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import keep_count, site_ratio
from uniprune.pruning.view import Grid
from uniprune.results.measurements import Flops

pytestmark = pytest.mark.end_to_end

family = pytest.mark.parametrize("family", FAMILIES)
METHODS = (NoPruning(), RandomPre(ratio=0.3), RandomIntra(ratio=0.3), RandomPre(ratio=0.6) >> RandomIntra(ratio=0.3))
"""Methods without a matrix product of their own."""


def counted(model: torch.nn.Module, pruner: Pruner, batch: dict[str, torch.Tensor]) -> tuple[Flops, Flops]:
    """(what our cost model says, what torch counted) of one forward, summed over rows.

    Eager attention computes, and torch therefore counts, all pairs of tokens, also those that causality and windows
    discard; these are taken off here, layer by layer, from the layers' true lengths.
    """
    layout = find_adapter(model)
    costs = CostModel(layout)
    with prune(model, pruner) as session, FlopCounterMode(display=False) as counter:
        model(**batch, use_cache=True, logits_to_keep=1)
    rows = session.reports[-1].rows
    ours = [costs.prompt(*row.prefill) for row in rows]
    counts = {name: sum(per.values()) for name, per in counter.get_flop_counts().items()}
    names = {module: f"{type(model).__name__}.{name}" for name, module in model.named_modules()}

    def torchs(module: torch.nn.Module) -> int:
        return counts.get(names[module], 0)

    projector = torchs(layout.projector)
    within = any(module is layout.projector for module in layout.vision.modules())
    outside = [part for part in layout.decoder.children() if isinstance(part, torch.nn.Linear)]
    decoder = torchs(model.get_output_embeddings()) + sum(map(torchs, outside))
    for number, layer in enumerate(layout.layers):
        lengths = [row.lengths[number] for row in rows]
        if hasattr(layer, "self_attn"):
            computed = sum(n * (1 if number in reusing_layers(layout.decoder.config) else n) for n in lengths)
            unseen = computed - sum(row.pairs[number] for row in rows)
            decoder += torchs(layer) - round(4 * width(layer.self_attn) * unseen)
        else:  # the chunks in which it computes are padded: its projections by torch, its state by hand
            mixer, per = layer.linear_attn, counter.get_flop_counts()[names[layer.linear_attn]]
            state = 3 * mixer.num_v_heads * mixer.head_k_dim * mixer.head_v_dim
            convolution = mixer.conv1d.weight.numel()
            decoder += torchs(layer) - torchs(mixer) + per[torch.ops.aten.mm] + per.get(torch.ops.aten.addmm, 0)
            decoder += 2 * (state + convolution) * sum(lengths)
    pooling = torchs(layout.vision.pooler) if hasattr(layout.vision, "pooler") else 0  # means, by a matrix of shares
    vision = torchs(layout.vision) - projector * within - pooling
    theirs = Flops(vision=vision, projector=projector, llm=decoder)
    return Flops(**{part: sum(getattr(one, part) for one in ours) for part in Flops.model_fields}), theirs


@pytest.mark.parametrize("pruner", METHODS, ids=["none", "pre", "intra", "both"])
@family
def test_operations_are_those_torch_counts(family: str, pruner: Pruner) -> None:
    ours, theirs = counted(build(family, "eager"), pruner, inputs(family, (2,)))
    assert ours == theirs


@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("name", ["llava", "internvl", "qwen2_5_vl", "qwen3_vl"])
def test_a_tower_that_drops_patches_is_counted(name: str, block: int) -> None:
    pruner = RandomTower(ratio=0.4, block=block) >> RandomIntra(ratio=0.5)
    ours, theirs = counted(build(name, "eager"), pruner, inputs(name, (2,)))
    assert ours == theirs
    assert ours.vision < counted(build(name, "eager"), NoPruning(), inputs(name, (2,)))[0].vision


def test_tiles_and_videos_are_counted() -> None:
    tiled = counted(build("internvl", "eager"), RandomPre(ratio=0.5), inputs("internvl", (1,), tiles=3))
    video = counted(build("qwen2_5_vl", "eager"), RandomPre(ratio=0.5), video_inputs())
    for ours, theirs in (tiled, video):
        assert ours == theirs


@family
def test_rows_of_a_batch_cost_what_they_cost_alone(family: str) -> None:
    """Padding is no row's cost."""
    model, images = build(family), (1, 2, 0)
    with prune(model, RandomPre(ratio=0.5)) as session:
        model(**inputs(family, images))
    costs = CostModel(find_adapter(model))
    one, two, text = (costs.prompt(*row.prefill) for row in session.reports[0].rows)
    assert text.vision == text.projector == 0
    assert 0 < text.llm < one.llm < two.llm
    assert 0 < one.vision < two.vision


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_5"])
@pytest.mark.parametrize("grids", [[(1, 4, 6), (1, 5, 3)], [(1, 2, 2), (1, 1, 7), (1, 4, 4)], [(3, 5, 3), (1, 4, 6)]])
def test_spans_of_grids_are_those_of_the_tower_call(family: str, grids: list[Grid]) -> None:
    """Windows cut off at the image's edge included; of clips, frame by frame."""
    layout, seen = find_adapter(tiny_model(family).model()), list[list[int]]()
    for block in layout.vision_blocks():
        see = lambda module, args, kwargs: seen.append(kwargs["cu_seqlens"].tolist())  # noqa: E731
        layout.vision_attention(block).register_forward_pre_hook(see, with_kwargs=True)
    patches = [(t, layout.merge * h, layout.merge * w) for t, h, w in grids]
    values = layout.random_image((1, 1), 1, torch.Generator())["pixel_values"].shape[1]
    layout.vision(torch.zeros(sum(map(prod, patches)), values), grid_thw=torch.tensor(patches))
    for number, bounds in enumerate(seen):
        found = layout.vision_spans(torch.empty(0), {}, grids, number)
        assert found == list(pairwise(bounds))


# --- published models -----------------------------------------------------------------------------------------------
PARAMETERS = {
    "qwen2.5-vl-7b": 8.29, "qwen2.5-vl-3b": 3.75, "internvl3-8b": 7.94, "internvl3-1b": 0.94, "llava-1.5-7b": 7.06,
    "llava-1.5-13b": 13.35, "llava-next-7b-vicuna": 7.06, "llava-next-13b-vicuna": 13.35, "llava-next-7b-mistral": 7.57,
    "internvl3.5-1b": 1.06, "internvl3.5-8b": 8.53, "qwen2-vl-2b": 2.21, "qwen2-vl-7b": 8.29,
    "gemma-3-4b": 4.30, "gemma-3-12b": 12.19, "gemma-3-27b": 27.43,
    "gemma-4-31b": 31.27, "gemma-4-26b-a4b": 25.81, "gemma-4-e4b": 7.63, "gemma-4-e2b": 4.80,
    "qwen3-vl-2b": 2.13, "qwen3-vl-4b": 4.44, "qwen3-vl-8b": 8.77, "qwen3-vl-32b": 33.36, "qwen3-vl-30b-a3b": 31.07,
    "llava-onevision-0.5b": 0.89, "llava-onevision-7b": 8.03, "llava-onevision-72b": 73.18,
    "smolvlm2-2.2b": 2.25, "smolvlm2-500m": 0.507, "smolvlm2-256m": 0.256, "idefics3-8b": 8.46,
    "pixtral-12b": 12.68, "mistral-small-3.1-24b": 24.01,
}  # fmt: skip
"""Billions, as the model hub counts them in the published checkpoints. Gemma 4's: with a vision tower (0.57 in 31B and
26B) and without an audio tower (0.30); the cards have 30.7 and 25.2 without the former, 5.1 and 8.0 with the latter."""
TEXT = 60


def published(name: str) -> ModelAdapter:
    """The real architecture, without memory."""
    return find_adapter(random_model(name, torch.bfloat16, "sdpa", "meta"))


@pytest.mark.parametrize("name", PARAMETERS)
def test_architectures_have_the_published_size(name: str) -> None:
    model = published(name).model
    billions = sum(parameter.numel() for parameter in model.parameters()) / 1e9
    assert billions == pytest.approx(PARAMETERS[name], abs=0.006)
    assert all(parameter.dtype == torch.bfloat16 and parameter.is_meta for parameter in model.parameters())


def test_every_architecture_is_tested() -> None:
    assert set(architectures()) == set(PARAMETERS)


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(UserError, match=r"unknown architecture 'qwen2\.5-vl-7'; did you mean 'qwen2\.5-vl-7b'"):
        random_model("qwen2.5-vl-7", torch.float32, "sdpa", "meta")


# Operations of the language model and of tower + projector in units of 1e12, then speed-ups "language model only / with
# tower" at keep ratio 1/9: before layer 0, before layer 2, before layer 2 at the ratio whose layer average is 1/9, and
# in two steps of 1/3. Closed formulas of the dimensions, evaluated outside this code base, for 60 text tokens.
CLOSED_FORMS: list[tuple[str, list[Grid], float, float, list[tuple[float, float]]]] = [
    ("qwen2.5-vl-7b", [(1, 16, 16)], 4.15, 1.35, [(3.60, 2.20), (3.04, 2.03), (3.58, 2.19), (3.44, 2.15)]),
    ("qwen2.5-vl-7b", [(1, 32, 40)], 17.85, 7.16, [(6.75, 2.55), (4.78, 2.30), (6.68, 2.54), (6.13, 2.48)]),
    ("internvl3-8b", [(1, 16, 16)], 4.15, 0.74, [(3.60, 2.59), (3.04, 2.32), (3.58, 2.58), (3.44, 2.51)]),
    ("internvl3-8b", [(1, 16, 16)] * 7, 24.86, 5.16, [(7.32, 3.51), (5.04, 2.98), (7.23, 3.49), (6.59, 3.36)]),
    ("internvl3-8b", [(1, 16, 16)] * 13, 46.52, 9.59, [(8.23, 3.68), (5.43, 3.09), (8.05, 3.65), (7.32, 3.52)]),
]


@pytest.mark.parametrize(("name", "images", "llm", "tower", "speedups"), CLOSED_FORMS)
def test_closed_forms_of_published_models(
    name: str, images: list[Grid], llm: float, tower: float, speedups: list[tuple[float, float]]
) -> None:
    costs, layers = CostModel(published(name)), 28
    visual = sum(t * h * w for t, h, w in images)

    def cost(entering: Sequence[int]) -> Flops:
        return costs.prompt(images, [count + TEXT for count in entering])

    whole, ninth, third = cost([visual] * layers), keep_count(visual, 1 / 9), keep_count(visual, 1 / 3)
    matched = keep_count(visual, site_ratio(1 / 9, 2, layers))
    assert whole.llm / 1e12 == pytest.approx(llm, abs=0.006)
    assert (whole.vision + whole.projector) / 1e12 == pytest.approx(tower, abs=0.006)
    plans = [[ninth] * 28, [visual] * 2 + [ninth] * 26, [visual] * 2 + [matched] * 26, [third] * 2 + [ninth] * 26]
    for plan, (alone, both) in zip(plans, speedups, strict=True):
        pruned = cost(plan)
        assert whole.llm / pruned.llm == pytest.approx(alone, rel=0.005)
        assert whole.total / pruned.total == pytest.approx(both, rel=0.005)
