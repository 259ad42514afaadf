"""Operations and waits of methods with several stages: each takes longer than the arithmetic it starts on a GPU.

Rules of a GPU are counted on simulated devices (tests/helpers/devices.py); the work of model and tower is not.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.devices import CPU, ONE, Places
from tests.helpers.tiny import fresh_model, inputs
from uniprune.engine import prune
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.methods import _windows
from uniprune.pruning import functional

pytestmark = pytest.mark.end_to_end


def callers() -> Iterator[str]:
    """Yield the names of the files of all callers, innermost first."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back


class Operations(TorchDispatchMode):
    """Count the operations of methods and of what they read, by the file that starts them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        files = list(callers())
        if any("/methods/" in file for file in files):
            ours = (file.rsplit("/", 1)[1] for file in files if "/torch/" not in file and "/tests/" not in file)
            self.count[next(ours)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def rules_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (functional, _windows):
        monkeypatch.setattr(module, "on_cpu", lambda x: x.device == CPU)


def prefill(name: str, places: Places) -> None:
    """Run a prefill of one image with a method, on a simulated device."""
    model, x = fresh_model("qwen2_5_vl"), inputs("qwen2_5_vl", (1,))
    places.put(model, ONE)
    with places, torch.no_grad():
        there: dict[str, Tensor] = {key: value.to(ONE) for key, value in x.items()}
        with prune(model, MethodSpec(name, ratio=0.34).pruner()):
            model(**there, use_cache=True)


@pytest.mark.parametrize(
    ("name", "waits"),
    [("sparsevlm", 1), ("sparsevlm-v2", 1), ("mustdrop", 5)],
    ids=["raters, at the first of three stages", "the same", "how many stay, at each of five"],
)
def test_waits_of_a_method(name: str, waits: int) -> None:
    places = Places()
    prefill(name, places)
    found = [names for _, names in places.waits if any("/methods/" in one for one in names)]
    own = [names for names in found if "/models/" not in "".join(names[:4])]
    assert len(own) == waits, own


@pytest.mark.parametrize(("name", "most"), [("sparsevlm", 430), ("mustdrop", 480)])
def test_operations_of_a_method(name: str, most: int) -> None:
    """In all stages, with the attention and the tower's quantities that it reads."""
    with Operations() as operations:
        prefill(name, Places())
    assert operations.count.total() <= most, operations.count
