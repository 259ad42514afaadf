"""No method makes the GPU wait once per picked token: what needs a value on the host does not grow with the budget."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.test_degenerate_views import SETTINGS, degenerate
from uniprune.choice import MethodChoice

READS = {Tensor.tolist, Tensor.numpy, Tensor.cpu}
VALUES = {"_local_scalar_dense"}  # item, bool, int, float
SIZED_BY_VALUES = {"nonzero", "masked_select", "_unique2", "unique_dim", "repeat_interleave", "bincount"}
MOST = 5
"""Waits of a whole decision that no method exceeds."""


class Waits(TorchDispatchMode):
    """Counts operations that read a value, or whose result has as many entries as values decide."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in SIZED_BY_VALUES | VALUES:
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """Counts tensors that Python asks for all values of."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[str]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS:
            self.count[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def waits(method: Any, keep: int) -> Counter[str]:
    view = degenerate([(1, 16, 16)], "random")
    with Waits() as sized, Reads() as read:
        method.select(view, keep)
    return sized.count + read.count


@pytest.mark.parametrize(("name", "setting"), [(name, one) for name, some in SETTINGS.items() for one in some])
def test_waits_do_not_grow_with_the_budget(name: str, setting: str) -> None:
    method = MethodChoice(name, ratio=0.5, settings=dict([setting.split("=")]) if setting else {}).pruner()
    few, many = waits(method, 16), waits(method, 128)
    assert few == many
    assert many.total() <= MOST


def test_a_loop_that_waits_is_noticed() -> None:
    class Published:
        def select(self, view: Any, keep: int) -> Tensor:
            near, picks = view.tokens @ view.tokens[0], []
            for _ in range(keep):
                picks.append(int(near.argmax()))
                near[picks[-1]] = -torch.inf
            return torch.tensor(picks)

    assert waits(Published(), 128).total() > waits(Published(), 16).total()
