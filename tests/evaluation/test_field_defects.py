"""One test per defect of released harnesses of the field, each shown to notice the defect when it is put back.

A `check` verifies the rule on a tiny model; the test runs it on the real code, and again with the defect restored (a
faulty method, or a replaced part of the engine), where it must fail.

Defects of the engine are in tests/engine/test_field_defects_engine.py.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from rich.console import Console
from torch import Tensor

from tests.helpers.paths import PLUGINS
from tests.helpers.pruners import generate
from tests.helpers.tiny import FAMILIES, LAYERS, build, inputs
from uniprune.engine import Session, prune
from uniprune.engine.timer import Timer
from uniprune.errors import PruningError, UserError
from uniprune.evaluation.dataset import DataOptions
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.methods._fitprune import received
from uniprune.methods.dart import DART
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.fitprune import FitPrune, importance
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.families import find_adapter
from uniprune.modeling.loading import LoadedModel, Placement, load
from uniprune.pruning.base import PreLLM, Pruner
from uniprune.pruning.budget import keep_count
from uniprune.pruning.view import View
from uniprune.registry import BENCHMARKS, load_plugin
from uniprune.results.records import Setup
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end

RATIOS = (0.111, 0.222, 0.333)
family = pytest.mark.parametrize("family", FAMILIES)


def noticed(problem: str) -> Any:
    """Expect the check inside the block to fail with this problem."""
    return pytest.raises(AssertionError, match=problem)


# --- 1. the ratio is ignored ------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Misspelt(PreLLM):
    """Reads the ratio from a misspelt variable, so keeps half."""

    exact: ClassVar[bool] = False

    def select(self, view: View, keep: int) -> Tensor:
        return torch.arange(keep_count(len(view.tokens), float(os.environ.get("KEEP_RADIO", "0.5"))))


def check_every_ratio_is_kept(family: str, at: Callable[[float], Pruner]) -> None:
    for ratio in RATIOS:
        with prune(build(family), at(ratio)) as session, torch.no_grad():
            build(family)(**inputs(family))
        report = session.reports[-1].rows[0]
        assert report.entering == [keep_count(report.initial, ratio)] * LAYERS, "another count than the ratio"


@family
def test_ratio_ignored(family: str) -> None:
    """UniPruneBench on Qwen2.5-VL reads a misspelt variable: 50 % at any ratio."""
    for name in ("random-pre", "divprune", "gprune"):
        check_every_ratio_is_kept(family, lambda ratio, name=name: MethodSpec(name, ratio=ratio).pruner())
    with noticed("another count than the ratio"):
        check_every_ratio_is_kept(family, lambda ratio: Misspelt(ratio=ratio))


# --- 2. the timer is around nothing -----------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Slow(Pruner):
    """Takes its time."""

    ratio: float = 0.5
    pause: float = 0.03

    def select(self, view: View, keep: int) -> Tensor:
        time.sleep(self.pause)
        return torch.arange(keep)


def check_method_time(layer: int) -> None:
    model, pruner = build("internvl"), Slow(layer=layer)
    with Timer(find_adapter(model)) as timer, prune(model, pruner, timer=timer):
        model.generate(**inputs("internvl"), max_new_tokens=2, do_sample=False)
    spans = timer.sample()
    assert spans.method >= pruner.pause, "the method's time is missing"
    assert spans.prefill + spans.vision + spans.projector + spans.decode <= spans.total - pruner.pause


@pytest.mark.parametrize("layer", [0, 2])
def test_method_time_measures_nothing(layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """UniPruneBench's events on InternVL enclose the look-up of the method, not its call."""
    check_method_time(layer)
    monkeypatch.setattr(Session, "_method_time", lambda session: nullcontext())
    with noticed("the method's time is missing"):
        check_method_time(layer)


# --- 3. FitPrune is inverted ------------------------------------------------------------------------------------
class Inverted(FitPrune):
    """Keeps what the original deletes."""

    def select(self, view: View, keep: int) -> Tensor:
        own, cross = received(view.attention.blocks("visual")), received(view.attention.blocks(view.following))
        return importance(own, cross).argsort()[:keep]


def check_the_important_stay(method: type[FitPrune]) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched(method):  # type: ignore[misc,valid-type]
        def select(self, view: View, keep: int) -> Tensor:
            rows = torch.cat((view.attention("visual"), view.attention(view.following)), dim=1).amax(0)
            count = len(view.tokens)
            seen.append((rows[:count].sum(0) * rows[count:].sum(0), super().select(view, keep)))
            return seen[-1][1]

    with prune(build("llava"), Watched(ratio=0.4)), torch.no_grad():
        build("llava")(**inputs("llava"))
    assert seen
    for score, kept in seen:
        gone = torch.ones_like(score, dtype=torch.bool).index_fill(0, kept, False)
        assert score[kept].min() >= score[gone].max(), "the important are dropped"


def test_fitprune_inverted() -> None:
    """UniPruneBench's port keeps the slice that the original deletes."""
    check_the_important_stay(FitPrune)
    with noticed("the important are dropped"):
        check_the_important_stay(Inverted)


# --- 6. predictions of one method are served to another -------------------------------------------------------------
@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[[str], Path]) -> LoadedModel:
    if "small" not in BENCHMARKS.names():
        load_plugin(PLUGINS / "small_benchmark.py")
    return load(ModelEntry(name="tiny", source=str(checkpoint("llava"))), Placement("float32", "sdpa", "cpu"))


def check_every_method_answers_for_itself(loaded: LoadedModel, output: Path, choices: list[MethodSpec]) -> None:
    forwards: list[int] = []
    handle = loaded.model.register_forward_hook(lambda *_: forwards.append(1))
    try:
        for choice in choices:
            forwards.clear()
            run = Run(loaded, choice, RunOptions(limit=2))
            with RunProgress(2, Console(quiet=True)) as progress:
                record = run.evaluate([BENCHMARKS.get("small")(DataOptions(Path("unused")))], Store(output), progress)
            assert forwards, f"predictions of {choice} came from the store"
            assert record.setup.method.name == choice.name
    finally:
        handle.remove()


def test_answers_of_one_method_served_to_another(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VLMEvalKit names prediction files by model and day, so a second method finds them and skips its rows."""
    choices = [
        MethodSpec("none"),
        MethodSpec("random-pre", ratio=0.5),
        MethodSpec("random-pre", ratio=0.25),
        MethodSpec("random-pre", ratio=0.25, seed=1),
        MethodSpec("fastv", ratio=0.25),
        MethodSpec("fastv", ratio=0.25, layer=3),
        MethodSpec("fastv", ratio=0.25, settings={"order": "release"}),
    ]
    check_every_method_answers_for_itself(loaded, tmp_path / "own", choices)
    monkeypatch.setattr(Setup, "identity", lambda setup: "T20251116_Gf93768f")
    with noticed("from the store"):
        check_every_method_answers_for_itself(loaded, tmp_path / "shared", choices[:2])


# --- 7. counts drift --------------------------------------------------------------------------------------------
def check_exact_counts(pruner: Pruner, x: dict[str, Tensor]) -> None:
    with prune(build("qwen2_5_vl"), pruner) as session, torch.no_grad():
        build("qwen2_5_vl")(**x)
    for report in session.reports[-1].rows:
        sizes = [sum(t * h * w for t, h, w in grids) for grids in report.grids]
        wanted = sum(keep_count(size, pruner.ratio) for size in sizes)
        assert report.entering[pruner.layer] == wanted, "counts drift"


@dataclass(frozen=True, kw_only=True)
class DriftingDART(DART):
    """Keeps as many as the release: an equal number for every pivot, the visual ones on top."""

    exact: ClassVar[bool] = False

    def select(self, view: View, keep: int) -> Tensor:
        pivots = self.visual_pivots + min(self.text_pivots, len(view.after))
        return super().select(view, min(len(view.tokens), self.visual_pivots + pivots * (keep // pivots)))


def test_counts_drift_from_the_budget() -> None:
    """DART keeps up to four tokens too many; UniPruneBench's port takes for granted that there are many of each."""
    for ratio in (0.01, *RATIOS, 0.9, 0.99):
        check_exact_counts(DART(ratio=ratio), inputs("qwen2_5_vl", (1, 2)))
    check_exact_counts(DART(ratio=0.4, visual_pivots=10, text_pivots=50), inputs("qwen2_5_vl", (1,)))
    with noticed("counts drift"):
        check_exact_counts(DriftingDART(ratio=0.6), inputs("qwen2_5_vl", (1,)))


# --- 9. errors nobody can read, noise in the hot loop -----------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Chatty(PreLLM):
    """Prints in every forward."""

    def select(self, view: View, keep: int) -> Tensor:
        sys.stdout.write("pruned!\n")
        return torch.arange(keep)


def check_silence(pruner: Pruner, capsys: pytest.CaptureFixture[str]) -> None:
    with prune(build("llava"), pruner):
        generate(build("llava"), inputs("llava"), 3)
    assert capsys.readouterr() == ("", ""), "printed"


def test_prints_in_the_hot_loop(capsys: pytest.CaptureFixture[str]) -> None:
    """UniPruneBench prints three lines per forward."""
    for pruner in (DivPrune(ratio=0.3), FastV(ratio=0.3), FitPrune(ratio=0.5)):
        check_silence(pruner, capsys)
    with noticed("printed"):
        check_silence(Chatty(ratio=0.3), capsys)


@dataclass(frozen=True, kw_only=True)
class Wrong(PreLLM):
    """Returns one token less."""

    def select(self, view: View, keep: int) -> Tensor:
        return torch.arange(keep - 1)


def test_errors_are_bare_asserts() -> None:
    """A good message has the problem, the expectation and the place."""
    with (
        prune(build("llava"), Wrong(ratio=0.5)),
        pytest.raises(PruningError, match=r"Wrong at layer 0, sample '0'.*7 "),
    ):
        generate(build("llava"), inputs("llava"), 1)
    with pytest.raises(UserError, match=r"keep ratio 0 is outside \(0, 1\]; 0.111 keeps one"):
        DivPrune(ratio=0)
