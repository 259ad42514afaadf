"""Left-padded batches: unequal prompts, image counts and kept counts; each row is what it would be alone."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.oracles import dropped_by, masked
from tests.helpers.pruners import Plan, Probe, generate
from tests.helpers.tiny import FAMILIES, IMAGE, VIDEO, build, inputs, row, video_inputs, visual
from uniprune.engine import PromptInfo, prune
from uniprune.engine.device_tokens import DeviceTokens
from uniprune.engine.host_copy import HOST
from uniprune.engine.kept_tokens import KeptTokens, Known, valid_columns
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.random_pre import RandomPre
from uniprune.pruning.base import Pruner, Selection
from uniprune.pruning.view import View

pytestmark = pytest.mark.end_to_end

family = pytest.mark.parametrize("family", FAMILIES)


@pytest.mark.sample(2)
@family
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("plan", [{0: 0.25}, {2: 0.25}, {0: 0.5, 2: 0.25, 4: 0.0}, {0: 1.0, 2: 0.1}], ids=str)
@pytest.mark.parametrize("images", [(1, 3), (2, 0), (0, 2, 1)], ids=str)
def test_batch_equals_masking(family: str, attention: str, plan: dict[int, float], images: tuple[int, ...]) -> None:
    model, x = build(family, attention), inputs(family, images)
    with prune(model, Plan(plan=plan)) as session:
        tokens, logits = generate(model, x, 8)
    reference = build(family, "eager")
    with masked(reference, dropped_by(session.reports[-1], x)):
        want_tokens, want = generate(reference, x, 8)
    assert torch.equal(tokens, want_tokens)
    torch.testing.assert_close(logits, want, atol=3e-4, rtol=1e-3)


def test_a_first_token_behind_padding_is_found() -> None:
    """The longest row of a batch may become the shortest; padding counts as position 0 as well."""
    index = np.array([[0, 0, 0, 3], [1, 2, 3, 5], [0, 0, 1, 4]])
    kept = KeptTokens(1, (2, 4, 2), 4, valid_columns((2, 4, 2)), Known(index))
    assert kept.columns(np.array([0, 3]), 0).tolist() == [2, 3]
    assert kept.columns(np.array([2, 5]), 1).tolist() == [1, 3]
    for tokens in (DeviceTokens(kept, 6), DeviceTokens(kept, 6, torch.from_numpy(index))):  # chosen on CPU and device
        assert tokens.columns(np.array([0, 3, 6 + 2, 6 + 5, 12 + 4]), HOST).tolist() == [2, 3, 4 + 1, 4 + 3, 8 + 3]


def merge_neighbours(view: View) -> Selection:
    """Keep every other token, averaged with the next one and weighed by received vision attention."""
    even = torch.arange(0, len(view.tokens) - 1, 2)
    weight = view.vision.received(-1)[even + 1, None]
    return Selection(even.flip(0), ((view.tokens[even] + weight * view.tokens[even + 1]) / (1 + weight)).flip(0))


class Merge(Probe):
    def select(self, view: View, keep: int) -> Any:
        return self.look(view)


PRUNERS = {
    "divprune": DivPrune(ratio=0.3),
    "random-pre": RandomPre(ratio=0.3),
    "fastv": FastV(ratio=0.3),
    "divprune+fastv": DivPrune(ratio=0.6) >> FastV(ratio=0.3, layer=3),
    "fastv-prompt": FastV(ratio=0.3, scope="prompt"),
    "merge": Merge(look=merge_neighbours, layers=(-1,), plan={0: 0.5}),
    "merge-inside": Merge(look=merge_neighbours, layers=(-1,), plan={2: 0.5}),
}


@family
@pytest.mark.parametrize("name", PRUNERS)
def test_row_equals_that_row_alone(family: str, name: str) -> None:
    model, images, samples = build(family), (1, 0, 2), (PromptInfo("a"), PromptInfo("b"), PromptInfo("c"))
    x = inputs(family, images)
    with prune(model, PRUNERS[name]) as session:
        session.samples = samples
        tokens, logits = generate(model, x, 8)
        together = session.reports[-1]
        assert session.samples == ()
        for b in range(3):
            session.samples = samples[b : b + 1]
            alone_tokens, alone_logits = generate(model, row(family, x, b, images), 8)
            assert torch.equal(alone_tokens[0], tokens[b])
            torch.testing.assert_close(alone_logits[0], logits[b], atol=3e-4, rtol=1e-3)
            assert session.reports[-1].rows[0].entering == together.rows[b].entering


@family
@pytest.mark.parametrize("image_id", [False, True], ids=["words", "image-id"])
def test_text_only_is_untouched(family: str, image_id: bool) -> None:
    """Without image inputs the placeholder's id is a word like any other."""
    model, x = build(family), inputs(family, (0, 0))
    x["input_ids"][:, -3:-1] = IMAGE if image_id else x["input_ids"][:, -3:-1]
    tokens, logits = generate(model, x)
    with prune(model, Plan(plan={0: 0.1, 2: 0.0})) as session:
        pruned_tokens, pruned_logits = generate(model, x)
    assert torch.equal(tokens, pruned_tokens)
    assert torch.equal(logits, pruned_logits)
    assert [r.initial for r in session.reports[-1].rows] == [0, 0]


def test_tiles_of_a_run_are_one_image() -> None:
    """InternVL: the tiles of an image share one decision, those of the next image another."""
    model, x = build("internvl"), inputs("internvl", (2,), tiles=3)
    look = Probe(look=lambda view: (len(view.grids), view.cells, view.tokens), plan={0: 0.5})
    with prune(model, look) as session:
        generate(model, x, 2)
    assert list(look.seen) == [(0, 0), (0, 1)]
    for grids, cells, _ in look.seen.values():
        assert grids == 3
        assert torch.equal(cells, torch.arange(48))
    assert session.reports[-1].rows[0].entering == [48] * 5


def test_other_families_take_each_image_apart() -> None:
    """Two LLaVA images without text between them are still two images."""
    model, x = build("llava"), inputs("llava", (2,))
    ids = x["input_ids"]
    places = (ids[0] == IMAGE).nonzero()[:, 0]
    between = torch.arange(int(places[16]) - 3, int(places[16]))
    keep = torch.ones(ids.shape[1], dtype=torch.bool)
    keep[between] = False
    x = {**x, "input_ids": ids[:, keep], "attention_mask": x["attention_mask"][:, keep]}
    look = Probe(look=lambda view: view.cells, plan={0: 0.5})
    with prune(model, look):
        generate(model, x, 2)
    assert [len(cells) for cells in look.seen.values()] == [16, 16]


def test_videos_are_images_with_time() -> None:
    model, x = build("qwen2_5_vl"), video_inputs()
    look = Probe(look=lambda v: (v.grids, len(v.vision.received(-1))), layers=(-1,), plan={0: 0.5, 2: 0.25})
    with prune(model, look) as session:
        tokens, logits = generate(model, x, 8)
    assert list(look.seen.values()) == [([(2, 4, 6)], 48), ([(2, 4, 6)], 24)]
    reference = build("qwen2_5_vl", "eager")
    with masked(reference, dropped_by(session.reports[-1], x, VIDEO)):
        want_tokens, want = generate(reference, x, 8)
    assert torch.equal(tokens, want_tokens)
    torch.testing.assert_close(logits, want, atol=3e-4, rtol=1e-3)


@family
def test_scope_prompt_joins_images(family: str) -> None:
    model, x = build(family), inputs(family, (3,))
    look = Probe(look=lambda view: (len(view.grids), len(view.cells)), plan={0: 0.5}, scope="prompt")
    with prune(model, look):
        generate(model, x, 2)
    grids = 6 if family == "llava_next" else 3
    assert list(look.seen.values()) == [(grids, int(visual(x).sum()))]


@family
def test_random_choice_depends_on_the_sample_only(family: str) -> None:
    model, x = build(family), inputs(family)

    def kept(pruner: Pruner, sample: str) -> torch.Tensor:
        with prune(model, pruner) as session:
            session.samples = (PromptInfo(sample),)
            generate(model, x, 1)
        return session.reports[-1].rows[0].stages[0].kept[0]

    first = kept(RandomPre(ratio=0.5), "17")
    assert torch.equal(first, kept(RandomPre(ratio=0.5), "17"))
    assert not torch.equal(first, kept(RandomPre(ratio=0.5), "18"))
    assert not torch.equal(first, kept(RandomPre(ratio=0.5, seed=1), "17"))
