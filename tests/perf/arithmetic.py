"""Share of arithmetic in `generate`: `python -m tests.perf.arithmetic --model tiny-llava` (not part of the suite).

Every matrix product, convolution and attention call of a batch is recorded with its shapes and then repeated alone, on
one thread. Their time is a lower bound for every batch size.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from uniprune.engine import prune
from uniprune.evaluation.collection import DatasetCollection
from uniprune.evaluation.generation import Generator
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.processing import RequestEncoder
from uniprune.modeling.catalog import find_model
from uniprune.modeling.loading import load, place

HEAVY = ("linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "convolution", "conv2d", "conv3d", "scaled_dot_product")


class RecordedCalls(TorchDispatchMode):
    """Counter of heavy calls by operator and shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[Any, str]] = Counter()
        self.examples: dict[tuple[Any, str], tuple[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.strip("_")
        if any(name == heavy or name.startswith("scaled_dot_product") for heavy in HEAVY):
            shapes = tree_map(lambda x: (x.shape, x.stride()) if isinstance(x, Tensor) else x, (args, kwargs))
            self.calls[func, str(shapes)] += 1
            self.examples.setdefault((func, str(shapes)), (args, kwargs))
        return func(*args, **kwargs)


def best(call: Callable[[], Any], repeats: int) -> float:
    """Measure the least CPU seconds of a call."""
    times = []
    for _ in range(repeats + 1):
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return min(times[1:])


def measure(model: str, choice: MethodSpec, count: int = 16) -> dict[int, tuple[float, float, float, float]]:
    """Measure by batch size: CPU seconds of a row in `generate`, of its products alone, of its attention calls alone,
    and the operations of the products (torch's counter knows no attention on CPUs).
    """
    loaded, found = load(find_model(model), place()), {}
    chat, encoder = Generator(loaded), RequestEncoder(loaded.processor)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(map(encoder.encode, DatasetCollection(Path(folder)).get("mini-pope").requests(count)))
    for size in (1, count):
        batches = [rows[start : start + size] for start in range(0, count, size)]
        with prune(loaded.model, choice.pruner()):
            took = best(lambda batches=batches: [chat.generate(batch) for batch in batches], 8) / count  # type: ignore[misc]
            with RecordedCalls() as recorded:
                chat.generate(batches[0])
            with FlopCounterMode(display=False) as counter:
                chat.generate(batches[0])
        alone = {True: 0.0, False: 0.0}
        with torch.inference_mode():
            for (func, shapes), calls in recorded.calls.items():
                args, kwargs = recorded.examples[func, shapes]
                attention = func.overloadpacket.__name__.startswith(("scaled", "_scaled"))
                alone[attention] += calls / size * best(lambda f=func, a=args, k=kwargs: f(*a, **k), 20)  # type: ignore[misc]
        found[size] = (took, alone[False], alone[True], counter.get_total_flops() / size)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny-llava")
    args = parser.parse_args()
    torch.set_num_threads(1)
    square = torch.randn(2048, 2048)
    print(f"a product of two 2048 x 2048 matrices: {2 * 2048**3 / best(lambda: square @ square, 5) / 1e9:.0f} GFLOP/s")
    for choice in (MethodSpec("none"), MethodSpec("random-pre", ratio=0.111)):
        for size, (took, products, attention, operations) in measure(args.model, choice).items():
            rate = operations / products / 1e9
            print(
                f"{args.model}, {choice.name}, batch size {size}: {1000 * took:.2f} ms a row; alone: products "
                f"{1000 * products:.2f} ms ({rate:.0f} GFLOP/s), attention {1000 * attention:.2f} ms"
            )


if __name__ == "__main__":
    main()
