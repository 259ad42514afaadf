"""Host time of the engine in one prefill: `python -m tests.perf.host --method random-pre` (not part of the suite).

A model with the layers of Qwen2.5-VL-7B and hardly any arithmetic prefills one prompt of 1280 visual tokens on the CPU: what
is left in the method span is the work of the host, which a GPU waits for at batch size 1. The least of many rounds is printed for
every part of the span, in microseconds, with the operations of torch in it, each of which is a kernel on a GPU.

Parts are named after the hook that opens them. `_after_vision` runs while a GPU still computes the tower.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from uniprune.engine import prune
from uniprune.engine.timer import Timer
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.latency.prompts import Prompts, random_prompts
from uniprune.modeling.families import find_adapter
from uniprune.modeling.random_weights import architectures
from uniprune.pruning.base import Pruner
from uniprune.utils.torchvision_compat import ensure_torchvision

HIDDEN, LAYERS, BLOCKS = 32, 28, 2


def small_model() -> Any:
    """Build a Qwen2.5-VL with random weights, as many decoder layers as the 7B model, and few channels."""
    ensure_torchvision()
    from transformers import AutoConfig, AutoModelForImageTextToText

    fields = dict(architectures()["qwen2.5-vl-7b"])
    size = {"hidden_size": HIDDEN, "intermediate_size": HIDDEN}
    rope = {**fields["text_config"]["rope_parameters"], "mrope_section": [2, 3, 3]}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": LAYERS}
    fields["text_config"] = {**fields["text_config"], **size, **heads, "rope_parameters": rope}
    tower = {"depth": BLOCKS, "num_heads": 2, "out_hidden_size": HIDDEN, "fullatt_block_indexes": [BLOCKS - 1]}
    fields["vision_config"] = {**fields["vision_config"], **size, **tower}
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa").eval()


class Parts(Timer):
    """A timer that also notes the CPU seconds of every part of the method span, by the function that opened it."""

    def __init__(self, adapter: Any) -> None:
        super().__init__(adapter)
        self.parts: dict[str, float] = defaultdict(float)
        self.inside: list[tuple[str, float]] = []
        self.count: Counting | None = None

    @contextmanager
    def span(self, name: Any) -> Iterator[None]:
        """Open a span."""
        frame: Any = sys._getframe(2)
        label = frame.f_code.co_name
        if self.count is not None:
            self.count.label = label
        start = time.thread_time()
        try:
            yield
        finally:
            if not self._forwards:
                self.parts[label] += time.thread_time() - start
            if self.count is not None:
                self.count.label = None


class Counting(TorchDispatchMode):
    """Counts operations of torch, views left out, in the part of the method span that is open."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not typed
        self.label: str | None = None
        self.found: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.label is not None and not func.is_view:
            self.found[self.label] += 1
        return func(*args, **(kwargs or {}))


@torch.inference_mode()
def measure(model: Any, pruner: Pruner, prompts: Prompts, rounds: int) -> tuple[list[dict[str, float]], dict[str, int]]:
    """Return the seconds of every part of the method span in each of many prefills, and its operations in one."""
    timer, found = Parts(find_adapter(model)), []
    timer.count = counting = Counting()
    with timer, prune(model, pruner, timer) as session:
        for number in range(rounds + 2):
            session.samples, timer.parts = prompts.samples, defaultdict(float)
            with counting if number == 1 else nullcontext():  # nothing is built then that later prefills use again
                model(**prompts.inputs, use_cache=True, logits_to_keep=1)
            timer.sample()
            session.reports.clear()
            found.append(timer.parts)
            timer.count = None if number else counting
    return found[2:], counting.found


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--method", nargs="+", default=["none", "random-pre", "divprune", "fastv"])
    parser.add_argument("--ratio", type=float, default=0.111)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    model = small_model()
    prompts = random_prompts(find_adapter(model), args.batch, args.tokens, 60, 0)
    for name in args.method:
        pruner = MethodSpec(name, ratio=1.0 if name == "none" else args.ratio).pruner()
        found, count = measure(model, pruner, prompts, args.rounds)
        least = {part: min(one[part] for one in found) * 1e6 for part in found[0]}
        tower = least.get("_after_vision", 0.0)
        print(f"{name}: {sum(least.values()):.0f} us, {sum(least.values()) - tower:.0f} without _after_vision")
        for part, seconds in least.items():
            print(f"  {part:<20} {seconds:7.0f} us {count[part]:4} operations")


if __name__ == "__main__":
    main()
