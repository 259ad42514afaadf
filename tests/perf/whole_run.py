"""Times of whole evaluations: `python -m tests.perf.whole_run --model tiny-llava` (not part of the test suite).

Three parts, measured on real commands on the mini suite, or on real calls:

* sharing: user-mode CPU and wall-clock seconds of one command each, all in one command, and all in one command that
  shares image features;
* batches: rows per CPU second at batch size 1 and 16, of `generate` alone and of a whole evaluation;
* engine: CPU time of `generate` on an un-pruned model, bare and inside the engine at keep ratio 1; also on a model of
  random weights whose forwards take about ten milliseconds.

`--part` picks some. Threads are those of `OMP_NUM_THREADS`.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from tests.helpers.paths import ROOT

PARTS = ("sharing", "batches", "engine")
SHARING = ("--share-vision", "2")
METHODS = ("none", "random-pre", "divprune", "gprune", "dart", "fastv", "visionzip", "fopru")


def spent(words: Sequence[str]) -> tuple[float, float]:
    """Measure (CPU seconds, wall-clock seconds) of one command, its children included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "run.py"), *words], check=True, capture_output=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    return after.ru_utime - before.ru_utime, wall


def several_methods(model: str, limit: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Time the same runs as separate commands, as one command, and sharing image features."""
    common = ["--model", model, "--ratio", "0.111", "--batch-size", "32", *limit]
    out: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        parts = [spent([*common, "--method", method, "--output", f"{folder}/apart"]) for method in METHODS]
        out["one command each"] = (sum(cpu for cpu, _ in parts), sum(wall for _, wall in parts))
        out["one command"] = spent([*common, "--method", *METHODS, "--output", f"{folder}/together"])
        sharing = [*SHARING, "--output", f"{folder}/shared"]
        out["one command, --share-vision 2"] = spent([*common, "--method", *METHODS, *sharing])
    return out


def batches(model: str, limit: int, rounds: int = 5) -> dict[str, list[float]]:
    """Measure rows per CPU second at batch sizes 1 and 16: of `generate` on prepared prompts, and of whole evaluations.

    The best of some rounds, taken in turn, on the first `limit` rows of every benchmark of the mini suite.
    """
    from uniprune.engine import prune
    from uniprune.evaluation.collection import DatasetCollection, dataset_names
    from uniprune.evaluation.feature_cache import sharing
    from uniprune.evaluation.generation import Generator
    from uniprune.evaluation.method_spec import MethodSpec
    from uniprune.evaluation.processing import RequestEncoder
    from uniprune.evaluation.runner import Runner
    from uniprune.modeling.catalog import find_model
    from uniprune.modeling.loading import load, place

    loaded = load(find_model(model), place())
    with tempfile.TemporaryDirectory() as folder:
        data = DatasetCollection(Path(folder)).all(dataset_names(None, "mini"))
        requests = [
            replace(one, index=f"{number} {one.index}") for number, d in enumerate(data) for one in d.requests(limit)
        ]
    chat, encoder, shared = Generator(loaded), RequestEncoder(loaded.processor), sharing(loaded, 2)
    rows = sorted(map(encoder.encode, requests), key=lambda row: row.tokens)
    methods = {"un-pruned": MethodSpec("none"), "keep ratio 1/9": MethodSpec("random-pre", ratio=0.111)}

    def generate(pruner: Any, size: int) -> None:
        with prune(loaded.model, pruner):
            for start in range(0, len(rows), size):
                chat.generate(rows[start : start + size])

    def evaluate(pruner: Any, size: int, known: Any = None) -> None:
        with Runner(loaded, pruner, size, shared=known) as answerer:
            assert not any(one.error for answers in answerer.predictions(requests, "mini") for one in answers)

    kinds = {"generate": generate, "all": evaluate, "all, images known": partial(evaluate, known=shared)}
    least: dict[str, list[float]] = {}
    for _ in range(rounds + 1):  # the first round fills what is shared
        for (method, choice), (kind, work) in product(methods.items(), kinds.items()):
            best = least.setdefault(f"{method}, {kind}", [math.inf, math.inf])
            for number, size in enumerate((1, 16)):
                start = time.process_time()
                work(choice.pruner(), size)
                best[number] = min(best[number], time.process_time() - start)
    return {name: [len(rows) / took for took in times] for name, times in least.items()}


def engine(model: str, rounds: int = 100) -> dict[str, tuple[float, float]]:
    """Measure median CPU milliseconds of `generate` (one row, 8 tokens): bare, and the difference inside the engine."""
    import torch
    from PIL import Image

    from uniprune.evaluation.dataset import Request
    from uniprune.evaluation.generation import Generator
    from uniprune.evaluation.processing import RequestEncoder
    from uniprune.modeling.catalog import find_model
    from uniprune.modeling.loading import load, place
    from uniprune.modeling.messages import Part
    from uniprune.modeling.tiny import tiny_model

    torch.set_num_threads(1)
    loaded = load(find_model(model), place())
    chat = Generator(loaded)
    picture = Part(image=Image.effect_noise((96, 96), 60).convert("RGB"))
    parts = (picture, Part(text="What is the word?"))
    request = Request("0", lambda: parts, "What is the word?", max_new_tokens=8)
    row = RequestEncoder(loaded.processor).encode(request)
    found = {model: in_turn(loaded.model, lambda: chat.generate([row]), rounds)}
    small = tiny_model(loaded.model.config.model_type, (12, 12))
    heads = {"num_attention_heads": 32, "num_key_value_heads": 32}  # as wide as the tiny model's
    wide = small.model("sdpa", hidden_size=512, intermediate_size=1408, num_hidden_layers=10, **heads)
    prompt = small.batch([small.prompt(torch.Generator().manual_seed(0), [(12, 12)], before=5, question=7)])

    def generate() -> None:
        wide.generate(**prompt, max_new_tokens=8, do_sample=False)

    found["10 layers of width 512"] = in_turn(wide, generate, rounds // 2)
    return found


def in_turn(model: Any, call: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Measure median CPU milliseconds of `call` bare, and of the difference to the call inside the engine after it."""
    from uniprune.engine import prune
    from uniprune.registry import METHODS as REGISTRY

    keep_all, took = REGISTRY.get("divprune")(ratio=1.0), []
    for number in range(rounds + 5):
        pair = {}
        for inside in (True, False) if number % 2 else (False, True):
            with prune(model, keep_all) if inside else nullcontext():
                start = time.thread_time()
                call()
                pair[inside] = 1000 * (time.thread_time() - start)
        took.append((pair[False], pair[True] - pair[False]))
    bare, more = zip(*took[5:], strict=True)
    return median(bare), median(more)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny-llava")
    parser.add_argument("--limit", help="rows per benchmark (default: all)")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="parts to measure (default: all)")
    args = parser.parse_args()
    limit = ["--limit", args.limit] if args.limit else []
    if "sharing" in args.part:
        print(f"{args.model}, {len(METHODS)} methods: CPU s, wall-clock s")
        for name, (cpu, wall) in several_methods(args.model, limit).items():
            print(f"  {name:48} {cpu:7.1f} {wall:7.1f}", flush=True)
    if "batches" in args.part:
        print(f"{args.model}, rows per CPU second at batch size 1 and 16")
        for name, (one, many) in batches(args.model, int(args.limit or 8)).items():
            print(f"  {name:48} {one:7.1f} {many:7.1f} ({many / one:.2f}x)")
    if "engine" in args.part:
        print("generate, CPU ms: bare, more inside the engine at ratio 1")
        for name, (bare, more) in engine(args.model).items():
            print(f"  {name:48} {bare:7.2f} {more:+7.3f} ({100 * more / bare:+.2f} %)", flush=True)


if __name__ == "__main__":
    main()
