"""Checks of how the engine applies a selection fail when the engine does something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import uniprune.engine.prefill as prefill
from uniprune.conformance import MethodUnderTest, Models
from uniprune.conformance import sequence as checks
from uniprune.engine.device_tokens import DeviceTokens
from uniprune.engine.dropping import Dropped
from uniprune.engine.kept_tokens import KeptTokens, Known
from uniprune.engine.prefill import Prefill
from uniprune.engine.report import PrefillReport
from uniprune.methods.divprune import DivPrune


@pytest.fixture(scope="module")
def method() -> Callable[[], MethodUnderTest]:
    models = Models()
    return lambda: MethodUnderTest(DivPrune(), "llava", models)


def wrap(patch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Let `change(result, *arguments)` decide what `owner.name(*arguments)` returns."""
    whole = getattr(owner, name)
    patch.setattr(owner, name, lambda *arguments: change(whole(*arguments), *arguments))


def test_they_pass_on_the_engine_as_it_is(method: Callable[[], MethodUnderTest]) -> None:
    for check in (checks.text_kept, checks.original_positions, checks.compact_positions, checks.kv_lengths):
        assert check(method()).outcome == "pass"
    assert checks.text_only(method()).outcome == "pass"


def test_positions_counted_from_the_start(
    method: Callable[[], MethodUnderTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(found: dict[str, Any], run: Prefill, layer: int, hidden: Tensor, kwargs: Any, kept: Any) -> Any:
        tables = tuple(table[:, : hidden.shape[1]] for table in kwargs["position_embeddings"])
        return found | {"position_embeddings": tables}

    one = method()
    wrap(monkeypatch, Prefill, "_gathered", first)
    assert checks.original_positions(one).detail == "positions differ in layers [0, 1, 2, 3, 4]"


def test_compact_positions_that_are_not(method: Callable[[], MethodUnderTest], monkeypatch: pytest.MonkeyPatch) -> None:
    one = method()
    wrap(monkeypatch, prefill, "renumbered", lambda result, kept, real: (kept.index, result[1]))
    assert checks.compact_positions(one).outcome == "FAIL"


def test_text_that_is_dropped(method: Callable[[], MethodUnderTest], monkeypatch: pytest.MonkeyPatch) -> None:
    def later(whole: Dropped, *arguments: Any) -> Dropped:
        kept, index = whole.now.kept, whole.columns[:, 1:]
        lengths = tuple(length - 1 for length in kept.lengths)
        fewer = KeptTokens(kept.layer, lengths, kept.width - 1, kept.valid[:, 1:], Known(index.numpy()))
        return dataclasses.replace(whole, columns=index, now=DeviceTokens(fewer, whole.now.length, index))

    one = method()
    wrap(monkeypatch, prefill, "dropped_on_device", later)
    assert "layers receive" in checks.text_kept(one).detail


def test_a_report_that_counts_wrong(method: Callable[[], MethodUnderTest], monkeypatch: pytest.MonkeyPatch) -> None:
    def more(row: Any, report: PrefillReport, *prompt: Any) -> Any:
        return dataclasses.replace(row, entering=[count + 1 for count in row.entering])

    one = method()
    wrap(monkeypatch, PrefillReport, "_row", more)
    result = checks.kv_lengths(one)
    assert result.outcome == "FAIL"
    assert "the report counts" in result.detail


def test_text_only_prompts_that_change(method: Callable[[], MethodUnderTest], monkeypatch: pytest.MonkeyPatch) -> None:
    def louder(result: Any, run: Prefill, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> Any:
        return (hidden * 1.01, {}) if not run.has_images else result

    one = method()
    wrap(monkeypatch, Prefill, "before_layer", louder)
    assert checks.text_only(one).detail == "logits differ"
    assert torch.is_grad_enabled()
