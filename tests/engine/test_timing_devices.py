"""The GPU on which a timer sets its marks. On a real GPU: tests/engine/test_gpu.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from uniprune.engine.timer import Timer


class Event:
    """An event that only remembers its stream."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: Any) -> None:
        self.stream = stream


def timer(*devices: str) -> Timer:
    """Return the timer of a model with one weight on each device."""
    places = [torch.device(name) for name in devices]
    weights = [SimpleNamespace(is_cuda=place.type == "cuda", device=place) for place in places]
    family: Any = SimpleNamespace(model=SimpleNamespace(parameters=lambda: iter(weights)))
    return Timer(family)


@pytest.fixture
def synchronised(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Devices that were synchronised."""
    seen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: ("stream of", device))
    monkeypatch.setattr(torch.cuda, "synchronize", seen.append)
    return seen


@pytest.mark.parametrize("devices", [("cuda:1",), ("cpu", "cuda:1")], ids=str)
def test_one_gpu_gets_events_on_its_own_stream(devices: tuple[str, ...], synchronised: list[torch.device]) -> None:
    mark = timer(*devices)._now()
    assert mark.stream == ("stream of", torch.device("cuda:1"))
    assert not synchronised


def test_several_gpus_are_waited_for_at_every_mark(synchronised: list[torch.device]) -> None:
    """An event on one of them would not measure a layer on another."""
    assert isinstance(timer("cuda:0", "cuda:1", "cuda:0")._now(), float)
    assert sorted(map(str, synchronised)) == ["cuda:0", "cuda:1"]


def test_a_cpu_waits_for_nothing(synchronised: list[torch.device]) -> None:
    assert isinstance(timer("cpu")._now(), float)
    assert not synchronised
