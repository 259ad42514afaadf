"""Methods that decide several views at once choose, for every one of them, what they choose for it alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.views import make_view
from tests.methods.test_degenerate_views import SETTINGS, Rows, Vision
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.pruning import functional, merging
from uniprune.pruning.base import Pruner, Selection
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import METHODS

BATCHED = {name for name in SETTINGS if METHODS.get(name).select_batch is not Pruner.select_batch}
DTYPES = (torch.float32, torch.bfloat16)
KINDS = ("random", "tied", "equal", "zero")
WAITING = {"sparsevlm", "holov"}
"""Methods that wait: how many text tokens rate a view, or what runs of tokens share, is read from the device."""
ONE_BY_ONE = ("cls=true", "overflow=zeros")
"""Settings with which no batch is decided."""
WIDTH = 33
"""An odd number of numbers per token: those of a later view are not aligned to anything."""


def method(name: str, setting: str) -> Any:
    """Return a method with one setting."""
    return MethodSpec(name, ratio=0.5, settings=dict([setting.split("=")]) if setting else {}).pruner()


CASES = [
    (name, one)
    for name in sorted(BATCHED)
    for one in SETTINGS[name]
    if method(name, one).exact and one not in ONE_BY_ONE
]


def drawn(count: int, kind: str, dtype: torch.dtype, seed: int) -> View:
    """Return a view of `count` tokens before layer 3, with more text for larger seeds."""
    random, words = torch.Generator().manual_seed(seed), 4 + seed % 5

    def values(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=random)
        some = {"random": drawn, "tied": drawn.mul(1.5).round(), "equal": torch.ones(shape), "zero": drawn * 0}
        return some[kind].to(dtype)

    tokens, text, rows = values(count, WIDTH), values(words, WIDTH), Rows(values(4, count + words, count).abs())
    return make_view(
        tokens,
        layer=3,
        prompt=text[seed % 2 :],
        text=text,
        after=torch.arange(words),
        attention=rows,
        upcoming=rows,
        vision=Vision(values(count, WIDTH)),
        embedded=SimpleNamespace(tokens=tokens, text=text),
        norm=lambda x: torch.nn.functional.rms_norm(x, x.shape[-1:]),
        seen=[values(count), values(count)],
        generator=torch.Generator().manual_seed(seed),
    )


def alone(pruner: Pruner, views: list[View], keep: int) -> list[Selection]:
    """Return the answers for one view after the other."""
    answers = [pruner.select(view, keep) for view in views]
    return [one if isinstance(one, Selection) else Selection(one) for one in answers]


def together(pruner: Pruner, views: list[View], keep: int) -> Selection:
    """Return the answer for all views."""
    answer = pruner.select_batch(ViewBatch(views), keep)
    assert answer is not None
    return answer if isinstance(answer, Selection) else Selection(answer)


def check(pruner: Pruner, count: int, keep: int, kind: str, dtype: torch.dtype, seeds: range) -> None:
    """Compare both forms bit for bit."""
    single = alone(pruner, [drawn(count, kind, dtype, seed) for seed in seeds], keep)
    joined = together(pruner, [drawn(count, kind, dtype, seed) for seed in seeds], keep)
    assert joined.indices.tolist() == [one.indices.tolist() for one in single]
    assert (joined.tokens is None) == (single[0].tokens is None)
    if joined.tokens is not None:
        assert all(torch.equal(a, b.tokens) for a, b in zip(joined.tokens, single, strict=True) if b.tokens is not None)


def test_the_methods_used_most_have_a_second_form() -> None:
    most = {"random-pre", "random-intra", "divprune", "cdpruner", "fastv", "visionzip", "prumerge", "dart", "zspaprune"}
    assert most | {"vispruner", "sparsevlm", "gprune"} <= BATCHED
    assert {"scope", "hiprune", "holov", "mmtok", "priortr"} <= BATCHED


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "setting"), CASES)
def test_several_views_are_decided_as_each_alone(name: str, setting: str, kind: str) -> None:
    pruner = method(name, setting)
    for count, keep, dtype in ((1, 1, 0), (2, 1, 1), (7, 3, 0), (24, 23, 1), (24, 24, 0)):
        check(pruner, count, keep, kind, DTYPES[dtype], range(3))


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_many_views_of_many_tokens(name: str, setting: str) -> None:
    for kind, dtype in zip(("random", "tied"), DTYPES, strict=True):
        check(method(name, setting), 150, 20, kind, dtype, range(4))


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_the_operations_of_a_gpu_choose_the_same(monkeypatch: pytest.MonkeyPatch, name: str, setting: str) -> None:
    """Carried out here, where products of a batch round otherwise than single ones."""
    views, pruner = [drawn(150, "random", torch.float32, seed) for seed in range(4)], method(name, setting)
    want = alone(pruner, views, 20)
    for module in (functional, merging):
        monkeypatch.setattr(module, "on_cpu", lambda x: False)
    found = together(pruner, [drawn(150, "random", torch.float32, seed) for seed in range(4)], 20)
    assert found.indices.tolist() == [one.indices.tolist() for one in want]
    if found.tokens is not None:
        torch.testing.assert_close(found.tokens, torch.stack([one.tokens for one in want if one.tokens is not None]))


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["random", "tied"])
@pytest.mark.parametrize(("name", "setting"), CASES)
def test_hundreds_of_views(name: str, setting: str, kind: str, dtype: torch.dtype) -> None:
    for first in range(0, 192, 16):
        check(method(name, setting), 64 + first, 9 + first // 8, kind, dtype, range(first, first + 16))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["evs", "vidcom2"])
def test_several_videos_are_decided_as_each_alone(name: str, kind: str) -> None:
    pruner = METHODS.get(name)(ratio=0.5, counts="exact")
    for frames, size, keep in ((1, 9, 9), (2, 1, 1), (5, 6, 15), (8, 12, 40)):
        views = [drawn(frames * size, kind, torch.float32, seed) for seed in range(3)]
        views = [replace(view, grids=[(frames, 1, size)]) for view in views]
        want = [one.indices.tolist() for one in alone(pruner, views, keep)]
        assert together(pruner, views, keep).indices.tolist() == want
    other = replace(views[0], grids=[(4, 2, 12)])
    assert pruner.select_batch(ViewBatch([views[0], other]), 48) is None


def test_one_view_is_a_batch_too() -> None:
    for name, setting in CASES:
        check(method(name, setting), 24, 5, "random", torch.float32, range(1))


def test_what_no_batch_can_decide_is_left_to_single_views() -> None:
    views = [drawn(24, "random", torch.float32, seed) for seed in range(2)]
    assert method("visionzip", "cls=true").select_batch(ViewBatch(views), 5) is None
    assert method("holov", "overflow=zeros").select_batch(ViewBatch(views), 5) is None
    short = [views[0], replace(views[1], after=torch.arange(2))]
    assert method("dart", "").select_batch(ViewBatch(short), 9) is None


def on_gpu(view: View) -> View:
    """Return the view with its tensors on a GPU; cells and draws stay on the CPU."""
    moved = {name: getattr(view, name).cuda() for name in ("tokens", "prompt", "text", "after")}
    rows, vision = Rows(view.attention.values.cuda()), Vision(view.vision.values.cuda())  # type: ignore[attr-defined]  # stand-ins
    embedded = SimpleNamespace(tokens=view.embedded.tokens.cuda(), text=view.embedded.text.cuda())
    return replace(view, attention=rows, upcoming=rows, vision=vision, embedded=embedded, **moved)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "setting"), CASES)
def test_a_gpu_chooses_as_the_cpu_without_waiting(name: str, setting: str) -> None:
    """In float64, where no rounding of another order of additions can swap two scores."""
    pruner = method(name, setting)

    def views() -> list[View]:
        return [drawn(150, "random", torch.float64, seed) for seed in range(4)]

    want, moved, again = alone(pruner, views(), 20), list(map(on_gpu, views())), list(map(on_gpu, views()))
    together(pruner, moved, 20)  # builds kernels
    torch.cuda.set_sync_debug_mode("default" if name in WAITING else "error")
    try:
        found = together(pruner, again, 20)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.indices.tolist() == [one.indices.tolist() for one in want]
    if found.tokens is not None:
        expected = torch.stack([one.tokens for one in want if one.tokens is not None])
        torch.testing.assert_close(found.tokens.cpu(), expected)
