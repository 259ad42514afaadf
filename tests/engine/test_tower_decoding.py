"""Stages in the vision tower under beams, samples and later turns equal masking what they dropped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import set_seed

from tests.helpers.oracles import VISUAL, dropped_by, masked
from tests.helpers.tiny import INTERLEAVES_BEAMS, build, inputs
from uniprune.engine import PrefillReport, prune
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.random_tower import RandomTower
from uniprune.methods.tome import ToMe
from uniprune.pruning.base import Pruner

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(INTERLEAVES_BEAMS, reason="this version of transformers takes no features in place of pixels"),
]

GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
MODES: dict[str, dict[str, Any]] = {
    "beams": {"num_beams": 3, "length_penalty": 1.0},
    "beams-returned": {"num_beams": 4, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "temperature": 0.7, "num_return_sequences": 3},
}
TOWER = RandomTower(ratio=0.4)
CASES: dict[tuple[str, str, str], Pruner] = {
    ("llava", "beams", "tower"): TOWER,
    ("llava", "beams-returned", "merging, then inside"): ToMe(ratio=0.4) >> FastV(ratio=0.5),
    ("llava", "sampling", "tower, then before"): TOWER >> DivPrune(ratio=0.5),
    ("internvl", "beams", "all three"): TOWER >> DivPrune(ratio=0.5) >> FastV(ratio=0.5),
    ("qwen2_5_vl", "beams", "tower, then before"): TOWER >> DivPrune(ratio=0.5),
    ("qwen2_5_vl", "sampling", "block 2"): RandomTower(ratio=0.5, block=2),
    ("qwen3_vl", "beams-returned", "tower, then before"): TOWER >> DivPrune(ratio=0.5),
    ("gemma3", "beams", "tower"): TOWER,
}


def encoded(model: Any, x: dict[str, Tensor], pruner: Pruner) -> dict[str, Any]:
    """Return a prompt whose images were encoded in a session: what a model gets of a tower that drops patches."""
    vision = {name: x[name] for name in VISUAL if name in x}
    with prune(model, pruner), torch.no_grad():
        features = model.get_image_features(**vision, return_dict=True)
    return {**{name: x[name] for name in x if name != "pixel_values"}, "mm_encoder_outputs": {"image": features}}


@pytest.mark.parametrize(("family", "mode", "name"), CASES)
def test_beams_and_samples_equal_masking(family: str, mode: str, name: str) -> None:
    """The tower decides once per image, the copies of a prompt share it; the reference sees no dropped token."""
    pruner = CASES[family, mode, name]
    model, x, options = build(family), inputs(family, (2, 1)), {**GREEDY, **MODES[mode]}
    with prune(model, pruner) as session:
        set_seed(3)
        got = model.generate(**x, **options)
    [report] = session.reports
    assert len(report.rows) == 2
    reference = build(family, "eager")
    given = encoded(model, x, pruner)
    with masked(reference, dropped_by(report, x)):
        set_seed(3)
        want = reference.generate(**given, **options)
    assert torch.equal(got, want)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_one_draw_serves_all_beams(family: str) -> None:
    model, x = build(family), inputs(family, (1, 1))

    def kept(report: PrefillReport) -> list[list[int]]:
        return [cells.tolist() for row in report.rows for stage in row.stages for cells in stage.kept]

    with prune(model, TOWER >> DivPrune(ratio=0.5)) as session:
        model.generate(**x, **GREEDY, num_beams=3)
        model.generate(**x, **GREEDY)
    one, other = map(kept, session.reports)
    assert one == other
