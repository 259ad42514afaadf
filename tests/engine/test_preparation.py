"""Prompts are prepared once, while the tower runs; a preparation of another call of the tower is not taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.helpers.tiny import fresh_model, inputs
from uniprune.engine import prune
from uniprune.engine.preparation import Preparation
from uniprune.methods.divprune import DivPrune
from uniprune.modeling.families import find_adapter

PRUNER = DivPrune(ratio=0.5)
FAMILIES = pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])


@FAMILIES
def test_a_forward_with_its_tower_is_prepared_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made, of = fresh_model(family), [], Preparation.of.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Any], *args: Any) -> Any:
        made.append(args)
        return of(cls, *args)

    monkeypatch.setattr(Preparation, "of", classmethod(counted))
    with prune(model, PRUNER) as session:
        model(**inputs(family))
    assert session.reports[0].pruned
    assert len(made) == 1


@FAMILIES
def test_a_preparation_of_another_call_is_made_anew(family: str) -> None:
    model = fresh_model(family)
    with torch.no_grad():
        with prune(model, PRUNER):
            expected = model(**inputs(family)).logits
        with prune(model, PRUNER) as session:
            swapped = []

            def swap(*_: Any) -> None:  # registered later, so that it runs behind the session's hook
                swapped.append(session._prepared)
                session._prepared = replace(session._prepared, vision=None, batch=None)

            handle = find_adapter(model).vision.register_forward_hook(swap)
            found = model(**inputs(family)).logits
            handle.remove()
    assert isinstance(swapped[0], Preparation)
    assert torch.equal(found, expected)
