"""Engines, of which each takes half a minute to start: one per model, whose method is changed from test to test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.serving import RATIO

if TYPE_CHECKING:
    from tests.helpers.serving import InTransformers, InVllm


@pytest.fixture(scope="package")
def reference() -> Callable[[str], InTransformers]:
    """Return a tiny model in transformers, loaded once."""
    from tests.helpers.serving import InTransformers

    loaded: dict[str, InTransformers] = {}
    return lambda family: loaded.setdefault(family, InTransformers(family)) if family not in loaded else loaded[family]


@pytest.fixture(scope="module")
def engine() -> Iterator[Callable[..., InVllm]]:
    """Return a tiny model in vLLM with original positions, started once per module; the one before it ends."""
    pytest.importorskip("vllm", reason="make serving")
    from tests.helpers.serving import InVllm

    running: dict[Any, InVllm] = {}

    def start(family: str, positions: str = "original", **options: Any) -> InVllm:
        key = family, positions, tuple(sorted(options.items()))
        if key not in running:
            while running:
                running.popitem()[1].close()
            running[key] = InVllm(family, {"method": "divprune", "ratio": RATIO, "positions": positions}, options)
        return running[key]

    yield start
    while running:
        running.popitem()[1].close()
