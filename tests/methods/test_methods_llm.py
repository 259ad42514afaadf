"""Methods inside the language model, end to end on every family: budgets, equivalence with masking, known defects."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.oracles import deepstack_rows, dropped_by, layerwise_masked, merged_inputs
from tests.helpers.pruners import generate
from tests.helpers.tiny import FAMILIES, IMAGE, INTERLEAVES_BEAMS, LAYERS, build, fresh_model, inputs, row, visual
from uniprune.engine import PromptInfo, prune
from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.methods.dart import DART
from uniprune.methods.fastv import FastV
from uniprune.methods.fitprune import FitPrune
from uniprune.methods.mustdrop import MustDrop
from uniprune.methods.pyramiddrop import PyramidDrop
from uniprune.methods.random_intra import RandomIntra
from uniprune.methods.sparsevlm import SparseVLM
from uniprune.methods.sparsevlm_v1 import SparseVLMv1
from uniprune.methods.sparsevlm_v2 import SparseVLMv2
from uniprune.methods.vtw import VTW
from uniprune.pruning.base import Pruner
from uniprune.pruning.budget import tokens_per_layer
from uniprune.registry import METHODS

pytestmark = pytest.mark.end_to_end

STEPS = 6
RATIO = 0.4
DROPPING = [
    DART(ratio=RATIO),
    VTW(ratio=RATIO),
    PyramidDrop(ratio=RATIO),
    FitPrune(ratio=RATIO),
    SparseVLMv2(ratio=RATIO),
]
MERGING = [
    SparseVLM(ratio=RATIO),
    SparseVLMv1(ratio=RATIO, scale=1.0),
    MustDrop(ratio=RATIO, global_threshold=0.002, individual_threshold=0.003),
]
METHOD_NAMES = ["dart", "vtw", "pyramiddrop", "fitprune", "sparsevlm", "sparsevlm-v1", "sparsevlm-v2", "mustdrop"]
ADAPTIVE = {"sparsevlm-v1", "mustdrop"}
family = pytest.mark.parametrize("family", FAMILIES)
every = pytest.mark.parametrize("pruner", DROPPING + MERGING, ids=lambda p: type(p).__name__)


@pytest.mark.sample(2)
@family
@pytest.mark.parametrize("pruner", DROPPING, ids=lambda p: type(p).__name__)
def test_dropping_equals_masking(family: str, pruner: Pruner) -> None:
    """Order, positions, cache and decode steps are right: the same logits as masking the dropped tokens in place."""
    model, x = build(family), inputs(family, (2,))
    with prune(model, pruner) as session:
        tokens, logits = generate(model, x, STEPS)
    dropped = {k: columns[0] for k, columns in dropped_by(session.reports[-1], x).items()}
    added = deepstack_rows(model, x)
    want_tokens, want, _ = layerwise_masked(model, *merged_inputs(model, x), dropped, STEPS, added=added)
    assert tokens[0].tolist() == want_tokens
    torch.testing.assert_close(logits[0], want, atol=2e-4, rtol=1e-3)


@pytest.mark.sample(2)
@family
@every
def test_every_row_of_a_batch_is_what_it_is_alone(family: str, pruner: Pruner) -> None:
    images, samples = (1, 2, 0), (PromptInfo("a"), PromptInfo("b"), PromptInfo("c"))
    model, x = build(family), inputs(family, images)
    with prune(model, pruner) as session:
        session.samples = samples
        tokens, logits = generate(model, x, STEPS)
        reports = session.reports[-1].rows
        for b, sample in enumerate(samples):
            session.samples = (sample,)
            alone_tokens, alone = generate(model, row(family, x, b, images), STEPS)
            assert session.reports[-1].rows[0].entering == reports[b].entering
            assert alone_tokens[0].tolist() == tokens[b].tolist()
            torch.testing.assert_close(alone[0], logits[b], atol=2e-4, rtol=1e-3)


@family
@every
def test_counts_and_caches_are_as_scheduled(family: str, pruner: Pruner) -> None:
    """Every layer holds the tokens that entered it, once; text around and between images stays."""
    model, x = build(family), inputs(family, (3,))
    with prune(model, pruner) as session, torch.no_grad():
        out = model(**x, use_cache=True)
    report = session.reports[-1].rows[0]
    rest = x["input_ids"].shape[1] - int(visual(x).sum())
    sizes = [sum(t * h * w for t, h, w in grids) for grids in report.grids]
    stages = pruner.schedule(LAYERS)
    if all(stage.pruner.exact for stage in stages):
        wanted = [tokens_per_layer(size, stages, LAYERS) for size in sizes]
        assert report.entering == [sum(column) for column in zip(*wanted, strict=True)]
    held = [out.past_key_values.get_seq_length(layer) for layer in range(LAYERS)]
    final, first = report.entering[-1], pruner.evict_from(LAYERS)
    evicted = [final if first is not None and layer >= first else n for layer, n in enumerate(report.entering)]
    withdrawn = [report.markers[0] - count for count in report.markers]
    assert held == [rest + n - lost for n, lost in zip(evicted, withdrawn, strict=True)]
    assert [lost > 0 for lost in withdrawn] == [not n and bool(report.markers[0]) for n in report.entering]
    assert report.entering == sorted(report.entering, reverse=True)
    assert report.entering[-1] < report.initial
    for stage in report.stages:
        for cells in stage.kept:
            assert cells.tolist() == sorted(set(cells.tolist()))


@pytest.mark.sample(2)
@family
@every
@pytest.mark.parametrize("scope", ["image", "prompt"])
def test_scopes_beams_and_bfloat16(family: str, pruner: Pruner, scope: str) -> None:
    if INTERLEAVES_BEAMS and family == "llava_next":
        pytest.skip("this version of transformers mixes up the images of beams, with or without pruning")
    pruner = dataclasses.replace(pruner, scope=scope)  # type: ignore[arg-type]
    x = inputs(family, (2,))
    model = bfloat16(family) if scope == "prompt" else build(family)
    x["pixel_values"] = x["pixel_values"].to(model.dtype)
    with prune(model, pruner) as session:
        generate(model, x, 3, num_beams=2)
    assert session.reports[-1].pruned


def bfloat16(family: str, models: dict[str, Any] = {}) -> Any:  # noqa: B006
    if family not in models:
        models[family] = fresh_model(family).to(torch.bfloat16)
    return models[family]


@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize("ratio", [0.01, 0.5, 0.95])
def test_extreme_ratios_run_by_name(name: str, ratio: float) -> None:
    pruner = MethodSpec(name, ratio=ratio).pruner()
    with prune(build("qwen2_5_vl"), pruner) as session:
        generate(build("qwen2_5_vl"), inputs("qwen2_5_vl", (1, 2)), 3)
    stages = pruner.schedule(LAYERS)
    for report in session.reports[-1].rows:
        sizes = [sum(t * h * w for t, h, w in grids) for grids in report.grids]
        wanted = [sum(column) for column in zip(*(tokens_per_layer(s, stages, LAYERS) for s in sizes), strict=True)]
        assert name in ADAPTIVE or report.entering == wanted


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_ratio_one_leaves_the_model_alone(name: str) -> None:
    model, x = build("internvl"), inputs("internvl")
    plain = generate(model, x, 3)
    with prune(model, METHODS.get(name)()) as session:
        again = generate(model, x, 3)
    assert torch.equal(plain[1], again[1])
    assert not session.reports[-1].pruned


@pytest.mark.parametrize(
    "pruner", [FastV(ratio=0.25), RandomIntra(ratio=0.25), *DROPPING], ids=lambda p: type(p).__name__
)
def test_no_layer_caches_a_token_twice(pruner: Pruner) -> None:
    """Recomputing attention of layer K - 1 must not append to its cache, in prefill or in decode steps."""
    model, x = build("llava"), inputs("llava")
    with prune(model, pruner) as session:
        out = model.generate(**x, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True)
    text = int((x["input_ids"] != IMAGE).sum()) + STEPS - 1
    entering = session.reports[0].rows[0].entering
    assert [out.past_key_values.get_seq_length(n) for n in range(LAYERS)] == [text + n for n in entering]


def test_compositions_with_methods_before_the_language_model() -> None:
    for name in METHOD_NAMES:
        pruner = MethodSpec(f"divprune+{name}", ratio=0.25).pruner()
        if name == "mustdrop":  # it begins before layer 0 itself
            with pytest.raises(UserError, match="must increase"), prune(build("llava"), pruner):
                pass
            continue
        with prune(build("llava"), pruner) as session:
            generate(build("llava"), inputs("llava", (2,)), 3)
        assert session.reports[-1].rows[0].entering[0] == 16


def test_a_prompt_that_ends_with_its_image_is_refused() -> None:
    x = inputs("llava")
    end = int((x["input_ids"][0] == IMAGE).nonzero()[-1]) + 1
    short: dict[str, Tensor] = {
        **x,
        "input_ids": x["input_ids"][:, :end],
        "attention_mask": x["attention_mask"][:, :end],
    }
    for pruner in (SparseVLM(ratio=0.5), MustDrop(ratio=0.5), FitPrune(ratio=0.5)):
        with prune(build("llava"), pruner), pytest.raises(UserError, match="put the question after the image"):
            generate(build("llava"), short, 1)
    for pruner in (DART(ratio=0.5), PyramidDrop(ratio=0.5), VTW(ratio=0.5)):
        with prune(build("llava"), pruner):
            generate(build("llava"), short, 1)
