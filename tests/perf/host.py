"""Host time of the engine in one prefill: `python -m tests.perf.host --method random-pre` (not part of the suite).

A model with the layers of Qwen2.5-VL-7B and hardly any arithmetic prefills one prompt of 1280 visual tokens on the CPU:
what is left in the method span is the work of the host, which a GPU waits for at batch size 1. For every part of it
the least CPU time of many rounds is printed, in microseconds, with the operations of torch in it, each of them one
kernel on a GPU or more, and the Python calls, which do not depend on the load of the machine.

Parts are named after the hook that opens them. `_after_vision` runs while a GPU still computes the tower.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
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
    """A timer that also notes, for every part of the method span, CPU seconds, or the calls and operations in it."""

    def __init__(self, adapter: Any) -> None:
        super().__init__(adapter)
        self.counting = "seconds"
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls, self.operations = Counter[str](), Counter[str]()

    @contextmanager
    def span(self, name: Any) -> Iterator[None]:
        """Open a span."""
        caller: Any = sys._getframe(2)
        part, start = caller.f_code.co_name, time.thread_time()

        def note(frame: Any, event: str, argument: Any) -> None:
            self.calls[part] += event in ("call", "c_call")

        sys.setprofile(note if self.counting == "calls" else None)
        with Operations(self.operations, part) if self.counting == "operations" else nullcontext():
            try:
                yield
            finally:
                sys.setprofile(None)
                if self.counting == "seconds":
                    self.seconds[part] += time.thread_time() - start


class Operations(TorchDispatchMode):
    """Counts operations of torch, views left out, under one name."""

    def __init__(self, found: Counter[str], part: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's is not typed
        self._found, self._part = found, part

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._found[self._part] += not func.is_view
        return func(*args, **(kwargs or {}))


@torch.inference_mode()
def measure(model: Any, pruner: Pruner, prompts: Prompts, rounds: int) -> tuple[list[dict[str, float]], Parts]:
    """Return the seconds of every part in each of many prefills of one session, and the timer with its counts."""
    timer, found = Parts(find_adapter(model)), []
    with prune(model, pruner, timer) as session:
        for counting in ["seconds", "calls", "operations"] + ["seconds"] * rounds:
            timer.counting, timer.seconds = counting, defaultdict(float)
            session.samples = prompts.samples
            model(**prompts.inputs, use_cache=True, logits_to_keep=1)
            session.reports.clear()
            found.append(timer.seconds)
    return found[3:], timer


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
        found, counted = measure(model, pruner, prompts, args.rounds)
        least = {part: min(one[part] for one in found) * 1e6 for part in found[0]}
        print(f"{name:<12} {'microseconds':>20} {'Python calls':>13} {'operations':>11}")
        for part, time_taken in least.items():
            print(f"  {part:<20} {time_taken:10.0f} {counted.calls[part]:13} {counted.operations[part]:11}")
        print(f"  {'all':<20} {sum(least.values()):10.0f} {counted.calls.total():13} {counted.operations.total():11}")


if __name__ == "__main__":
    main()
