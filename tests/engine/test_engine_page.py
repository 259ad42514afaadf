"""A newcomer can follow one prefill: it passes few files, and docs/engine.md lists every hook."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import torch

from tests.helpers.paths import ROOT
from tests.helpers.tiny import build, inputs
from uniprune.engine import prune
from uniprune.engine.session import Session
from uniprune.engine.timer import Timer
from uniprune.engine.tower_hooks import TowerHooks
from uniprune.methods.fastv import FastV

MOST_FILES = 36
"""The method's own, 26 of the engine, 5 of adapters and layouts, 3 of what methods share.

That tokens stay on the device until the end has divided files: tokens as the CPU and as the device know them, groups of
one size, their views, answers and stages have one each. docs/engine.md names them all.
"""
OURS = tuple(str(ROOT / folder) + "/" for folder in ("uniprune", "methods", "models"))
HOOK = re.compile(r"_(?:before|after)_[a-z_]+")


def entered(run: Callable[[], Any]) -> set[str]:
    """Return the source files of this repository in which `run` calls a function."""
    files: set[str] = set()

    def note(frame: Any, event: str, argument: Any) -> None:
        if frame.f_code.co_filename.startswith(OURS):
            files.add(frame.f_code.co_filename.removeprefix(str(ROOT) + "/"))

    earlier = sys.gettrace()
    sys.settrace(note)
    try:
        run()
    finally:
        sys.settrace(earlier)
    return files


def test_one_prefill_with_one_stage_passes_few_files() -> None:
    model, x = build("llava"), inputs("llava")
    with prune(model, FastV(ratio=0.5)) as session, torch.no_grad():
        files = entered(lambda: model(**x))
    assert session.reports[0].pruned
    assert {"uniprune/engine/session.py", "uniprune/engine/prefill.py", "methods/fastv.py"} <= files
    assert len(files) <= MOST_FILES, sorted(files)


def test_the_page_lists_every_hook_and_no_other() -> None:
    page = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    hooks = {name for owner in (Session, TowerHooks, Timer) for name in vars(owner) if HOOK.fullmatch(name)}
    example = "_after_attention"
    assert len(hooks) > 10
    assert set(HOOK.findall(page)) - {example} == hooks


def test_the_page_names_every_file() -> None:
    page = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "uniprune" / "engine").glob("*.py")} - {"__init__.py"}
    assert {name for name in files if f"`{name}`" not in page} == set()
