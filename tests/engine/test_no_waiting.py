"""No method waits for the GPU once per selected token: reads of device values do not grow with the budget."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tests.methods.test_degenerate_views import SETTINGS, degenerate
from uniprune.evaluation.method_spec import MethodSpec

pytestmark = pytest.mark.end_to_end

READS = {Tensor.tolist, Tensor.numpy, Tensor.cpu}
VALUES = {"_local_scalar_dense"}  # item, bool, int, float
SIZED_BY_VALUES = {
    *("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave", "bincount"),
    *("equal", "multinomial", "tensor_split"),
}
MASKED = {"index", "index_put", "index_put_", "_index_put_impl_"}
MOST = 10
"""Largest number of waits of one decision."""


class Waits(TorchDispatchMode):
    """Count operations that read a value, or the size of whose result depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = [x for x in tree_flatten(args[1])[0] if isinstance(x, Tensor)] if name in MASKED else []
        copied = name == "_to_copy" and (kwargs or {}).get("device") is not None
        if name in SIZED_BY_VALUES | VALUES or copied or any(mask.dtype == torch.bool for mask in masks):
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """Count tensors whose values are all copied to Python."""

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
    method = MethodSpec(name, ratio=0.5, settings=dict([setting.split("=")]) if setting else {}).pruner()
    few, many = waits(method, 16), waits(method, 128)
    assert few == many
    assert many.total() <= MOST


def by_number(near: Tensor) -> None:
    near[int(near.argmax())] = -torch.inf


def by_mask(near: Tensor) -> None:
    near[near == near.max()] = -torch.inf


def by_comparison(near: Tensor) -> None:
    torch.equal(near, near.clone())


@pytest.mark.parametrize("step", [by_number, by_mask, by_comparison])
def test_a_loop_that_waits_is_noticed(step: Callable[[Tensor], None]) -> None:
    class Published:
        def select(self, view: Any, keep: int) -> None:
            near = view.tokens @ view.tokens[0]
            for _ in range(keep):
                step(near)

    assert waits(Published(), 128).total() >= waits(Published(), 16).total() + 112
