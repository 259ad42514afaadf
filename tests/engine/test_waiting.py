"""The engine waits for a GPU once for a prompt, before the tower runs, and once per choice, after the decoder has run.

Only methods that choose how many tokens stay are waited for in between; decode steps never wait. Counted on simulated
devices (tests/helpers/devices.py). Waits of the model itself and of methods are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.helpers.devices import ONE, Places
from tests.helpers.pruners import FixedAnswer, generate
from tests.helpers.tiny import fresh_model, inputs
from uniprune.engine import PromptInfo, prune
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.fopru import FoPru
from uniprune.methods.none import NoPruning
from uniprune.methods.random_pre import RandomPre
from uniprune.methods.transprune import TransPrune
from uniprune.methods.v2drop import V2Drop
from uniprune.modeling.families import find_adapter
from uniprune.pruning.base import PreLLM, Pruner, Selection
from uniprune.pruning.view import View

pytestmark = pytest.mark.end_to_end


class Merge(PreLLM):
    """Keep the first tokens and double them."""

    def select(self, view: View, keep: int) -> Selection:
        return Selection(torch.arange(keep, device=view.tokens.device), 2 * view.tokens[:keep])


def waits(family: str, pruner: Pruner, images: Sequence[int], look: bool = False) -> list[list[str]]:
    """Return the operations the CPU waited for in the engine, per forward of a `generate` call of four tokens."""
    model, x, places = fresh_model(family), inputs(family, tuple(images)), Places()
    places.put(model, ONE)
    starts: list[int] = []

    def note(*_: Any) -> None:
        starts.append(len(places.waits))

    with places:
        there: dict[str, Tensor] = {name: value.to(ONE) for name, value in x.items()}
        handle = model.register_forward_pre_hook(note)
        with prune(model, pruner) as session:
            session.samples = tuple(PromptInfo(str(i), torch.tensor([7, 8, 9])) for i in range(len(images)))
            generate(model, there, 4)
            if look:
                starts.append(len(places.waits))
                assert session.reports[0].rows
        handle.remove()
    spans = zip(starts, [*starts[1:], len(places.waits)], strict=True)
    found = [[place for place in places.waits[start:stop] if engine(place[1])] for start, stop in spans]
    return [[name.removeprefix("torch.").removeprefix("Tensor.") for name, _ in span] for span in found]


def engine(files: Sequence[str]) -> bool:
    """Check whether the engine waited, and not a method it called."""
    ours = next((file for file in files if "/uniprune/engine/" in file or "/methods/" in file), "")
    return "/uniprune/engine/" in ours


@pytest.mark.sample(2)
@pytest.mark.parametrize("images", [(1,), (2, 1, 1)], ids=["one row", "a padded batch"])
@pytest.mark.parametrize("family", ["llava", "internvl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(
    ("pruner", "prefill"),
    [
        (NoPruning(), 0),
        (DivPrune(ratio=1.0), 0),
        (RandomPre(ratio=0.5), 1),
        (DivPrune(ratio=0.5), 2),
        (FastV(ratio=0.5), 2),
        (Merge(ratio=0.5), 2),
        (DivPrune(ratio=0.5) >> FastV(ratio=0.5), 3),
    ],
    ids=["none", "ratio 1", "chosen on the host", "before the model", "inside", "merging", "two stages"],
)
def test_waits_of_the_engine(family: str, pruner: Pruner, prefill: int, images: tuple[int, ...]) -> None:
    first, *steps = waits(family, pruner, images)
    grid = ["tolist"] if family.startswith("qwen") else []  # the tower's own argument, which the tower reads itself
    assert [name for name in first if name not in grid] == ["to"] * prefill
    assert steps == [[], [], []]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava-pixtral"])
def test_attention_of_the_tower_waits_for_nothing_more(family: str) -> None:
    """Its windows and frames follow from the sizes of the images, which the CPU has."""
    plain, reading = (waits(family, pruner, (2, 1))[0] for pruner in (DivPrune(ratio=0.5), FoPru(ratio=0.5)))
    assert reading == plain


class Own(FixedAnswer):
    """Keeps half of the tokens, without saying so before."""

    exact: ClassVar[bool] = False


@pytest.mark.sample(2)
@pytest.mark.parametrize("images", [(1,), (2, 1, 1)], ids=["one row", "a padded batch"])
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(
    ("pruner", "inside"),
    [
        (RandomPre(ratio=0.5), 0),
        (DivPrune(ratio=0.5), 0),
        (FastV(ratio=0.5), 0),
        (Merge(ratio=0.5), 0),
        (DivPrune(ratio=0.5) >> FastV(ratio=0.5), 0),
        (V2Drop(ratio=0.5), 0),
        (TransPrune(ratio=0.5), 0),
        (Own(answer=lambda view, keep: torch.arange(len(view.tokens) // 2, device=view.tokens.device)), 1),
    ],
    ids=[
        *("chosen on the host", "before the model", "inside", "merging", "two stages", "looking at layers"),
        *("looking inside layers", "a number of its own"),
    ],
)
def test_nothing_waits_while_layers_are_queued(
    family: str, pruner: Pruner, inside: int, images: tuple[int, ...]
) -> None:
    model, x, places = fresh_model(family), inputs(family, images), Places()
    places.put(model, ONE)
    marks: list[int] = []

    def note(*_: Any) -> None:
        marks.append(sum(engine(files) for _, files in places.waits))

    adapter = find_adapter(model)
    handles = [adapter.vision.register_forward_pre_hook(note), adapter.decoder.register_forward_hook(note)]
    with places, prune(model, pruner) as session, torch.no_grad():
        session.samples = tuple(PromptInfo(str(i)) for i in range(len(images)))
        model(**{name: value.to(ONE) for name, value in x.items()})
        note()
    for handle in handles:
        handle.remove()
    before, queued, end = marks
    grid = int(family.startswith("qwen"))  # sizes of the images, which the tower itself reads
    assert (before, queued - before - grid) == (1, inside)
    on_host = inside or isinstance(pruner, RandomPre)
    assert end - queued == (0 if on_host else len(pruner.schedule(len(adapter.layers))))


def test_reports_wait_when_they_are_read() -> None:
    """For the ids of the prompts, and for their last positions."""
    *_, report = waits("llava", NoPruning(), (1,), look=True)
    assert report == ["to", "tolist"]


def test_waits_are_noticed() -> None:
    with Places() as places:
        one = torch.ones(3).to("cpu:1", non_blocking=True)
        mask, index = one > 0, (one > 0).long()
        for fine in (lambda: one[index], lambda: one + one, lambda: one.sum(), lambda: one.to("cpu:2")):
            fine()
        assert places.waits == []
        waiting = (
            *(lambda: one[mask], lambda: bool(mask.any()), lambda: one.tolist(), lambda: mask.nonzero()),
            *(lambda: one.to("cpu"), lambda: torch.ones(1).to("cpu:1"), lambda: torch.tensor([1], device="cpu:1")),
        )
        for look in waiting:
            look()
        assert len(places.waits) == len(waiting)
