"""Videos of the families that take them: pruned as one image with time, counted in full."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.oracles import dropped_by, masked
from tests.helpers.pruners import Probe, generate
from tests.helpers.tiny import VIDEO, build, video_inputs
from tests.modeling.test_flops import counted
from uniprune.engine import prune
from uniprune.methods.random_pre import RandomPre
from uniprune.modeling.families import find_adapter

family = pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])


@family
def test_a_video_is_one_group_of_frames(family: str) -> None:
    model, x = build(family), video_inputs()
    assert find_adapter(model).videos
    look = Probe(look=lambda view: (view.grids, len(view.vision.received(-1))), layers=(-1,), plan={0: 0.5, 2: 0.25})
    with prune(model, look) as session:
        tokens, logits = generate(model, x, 8)
    assert list(look.seen.values()) == [([(2, 4, 6)], 48), ([(2, 4, 6)], 24)]
    reference = build(family, "eager")
    with masked(reference, dropped_by(session.reports[-1], x, VIDEO)):
        want_tokens, want = generate(reference, x, 8)
    assert torch.equal(tokens, want_tokens)
    torch.testing.assert_close(logits, want, atol=3e-4, rtol=1e-3)


@family
def test_operations_of_a_video_are_those_torch_counts(family: str) -> None:
    ours, theirs = counted(build(family, "eager"), RandomPre(ratio=0.5), video_inputs())
    assert ours == theirs
