"""A method's writes into its view, or into the process, change no number; where they could, they are refused."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.pruners import FixedAnswer, generate
from tests.helpers.tiny import FAMILIES, build, inputs
from uniprune.engine import PromptInfo, prune
from uniprune.engine.checks import process_settings
from uniprune.errors import PruningError
from uniprune.pruning.base import Pruner, Selection, Stage
from uniprune.pruning.view import View


def lent(view: View) -> Iterator[Tensor]:
    """Every tensor that a view hands out, and those in plain sight on the objects it hands out."""
    for name in ("tokens", "cells", "prompt", "text", "after"):
        yield getattr(view, name)
    yield from (view.embedded.tokens, view.embedded.text, view.features("llm"), view.vision.features())
    yield from (view.vision.keys(), view.vision.hidden(), view.vision.importance(), view.vision.received())
    yield from (view.vision.exchanged(), view.vision.project(view.vision.features()))
    if view.layer:
        for rows in ("last", "prompt", "text", "visual", view.after):
            yield from (view.attention(rows), view.attention.keys(rows), view.attention.rotary_prior(rows))
            yield view.upcoming(rows)
    for owner in (view, view.vision, view.embedded, *([view.attention, view.upcoming] if view.layer else [])):
        names = [name for name in vars(owner) if not name.startswith("_")]
        yield from (value for value in map(vars(owner).get, names) if isinstance(value, Tensor))


@dataclass(frozen=True, kw_only=True)
class Writer(Pruner):
    """Keeps tokens by length and cell before layers 0, 2 and 3, and may then write into all it was lent."""

    writes: bool
    ratio: float = 0.5
    llm_attention: ClassVar[bool] = False
    upcoming_attention: ClassVar[bool] = True

    @property
    def vision_layers(self) -> tuple[int | None, ...]:
        return (None,)

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        inside = Inside(writes=self.writes, order=self.order)
        return (Stage(0, 0.5, self), Stage(2, 0.6, inside), Stage(3, 0.3, inside))

    def select(self, view: View, keep: int) -> Tensor | Selection:
        lengths = view.tokens.float().norm(dim=-1) * (1 + view.cells % 3)
        picks = lengths.argsort(descending=True)[:keep]
        for tensor in lent(view) if self.writes else ():
            tensor.fill_(True if tensor.dtype == torch.bool else 1)
        return picks


@dataclass(frozen=True, kw_only=True)
class Inside(Writer):
    layer: int = 2
    llm_attention: ClassVar[bool] = True


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("order", ["raster", "release"])
def test_what_is_written_into_a_view_changes_nothing(family: str, order: Any) -> None:
    found = []
    for writes in (False, True):
        with prune(build(family), Writer(writes=writes, order=order)) as session, torch.inference_mode():
            tokens, logits = generate(build(family), inputs(family, (1, 2)), 3)
        stages = [[kept.tolist() for stage in row.stages for kept in stage.kept] for row in session.reports[0].rows]
        found.append((tokens.tolist(), logits.tolist(), stages, [row.entering for row in session.reports[0].rows]))
    assert found[0] == found[1]


def test_other_tokens_than_were_chosen_are_refused() -> None:
    """A method that reaches for the engine's own bookkeeping changes no token that stays, and no report is given."""

    def answer(view: Any, keep: int) -> Tensor:
        view._prompt._cells[0] %= 4
        return torch.arange(keep)

    with prune(build("llava"), FixedAnswer(answer=answer)) as session:
        session.samples = (PromptInfo("17"),)
        generate(build("llava"), inputs("llava"), 1)
    with pytest.raises(PruningError, match=r"at layer 0, sample '17': \d+ visual tokens were chosen, but \d+ are left"):
        _ = session.reports[0].rows[0].stages


CHANGES: dict[str, Callable[[], object]] = {
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "autocast on cpu": lambda: torch.set_autocast_enabled("cpu", True),
    "autocast dtype on cuda": lambda: torch.set_autocast_dtype("cuda", torch.bfloat16),
    "cuDNN's benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "flash attention": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "working directory": lambda: os.chdir("/"),
}
DRAWS: dict[str, Callable[[], object]] = {
    "torch": lambda: torch.rand(3),
    "torch,": lambda: torch.manual_seed(1),
    "NumPy": lambda: np.random.rand(3),  # noqa: NPY002
    "NumPy,": lambda: np.random.seed(1),  # noqa: NPY002
    "Python": random.random,
}


def after(effect: Callable[[], object]) -> FixedAnswer:
    def answer(view: View, keep: int) -> Tensor:
        kept = torch.arange(keep)
        effect()
        return kept

    return FixedAnswer(answer=answer)


@pytest.mark.parametrize("name", CHANGES)
def test_settings_of_the_process_are_restored_and_the_change_refused(name: str) -> None:
    before = process_settings()
    expected = rf"FixedAnswer at layer 0: select\(\) changed the .*{name}"
    with prune(build("llava"), after(CHANGES[name])), pytest.raises(PruningError, match=expected):
        generate(build("llava"), inputs("llava"), 1)
    assert process_settings() == before


def test_settings_are_restored_after_an_exception() -> None:
    def broken() -> None:
        torch.set_default_dtype(torch.float64)
        raise ZeroDivisionError("in select")

    with prune(build("llava"), after(broken)), pytest.raises(ZeroDivisionError, match="in select"):
        generate(build("llava"), inputs("llava"), 1)
    assert torch.get_default_dtype() == torch.float32


def test_the_gradient_mode_inside_a_method_is_its_own() -> None:
    with prune(build("llava"), after(lambda: torch.set_grad_enabled(True))), torch.no_grad():
        generate(build("llava"), inputs("llava"), 1)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("name", DRAWS)
def test_global_random_generators_are_not_drawn_from(name: str) -> None:
    expected = f"global random generator of {name.strip(',')}, so its choice depends on what ran before"
    with prune(build("llava"), after(DRAWS[name])), pytest.raises(PruningError, match=expected):
        generate(build("llava"), inputs("llava"), 1)


def test_a_users_own_draws_between_prefills_are_free() -> None:
    with prune(build("llava"), after(lambda: None)) as session:
        for _ in range(2):
            torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
            generate(build("llava"), inputs("llava"), 1, do_sample=True)
    assert len(session.reports) == 2
