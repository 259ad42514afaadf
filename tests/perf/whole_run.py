"""How long whole evaluations take: `python -m tests.perf.whole_run --model tiny-llava` (not part of the test suite).

Three questions, answered by real commands on the mini suite, or by real calls:

* sharing: user-mode CPU and wall-clock seconds of one command each, all in one command, and all in one command that
  shares image features;
* batches: rows per second at batch size 1 and 16, of `generate` and of whole commands;
* engine: CPU time of `generate` on an un-pruned model, bare and inside the engine at keep ratio 1; also on a model of
  random weights whose forwards take about ten milliseconds.

`--part` picks some. Threads are those of `OMP_NUM_THREADS`.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
PARTS = ("sharing", "batches", "engine")
SHARING = ("--share-vision", "2")
METHODS = ("none", "random-pre", "divprune", "gprune", "dart", "fastv", "visionzip", "fopru")


def spent(words: Sequence[str]) -> tuple[float, float]:
    """(CPU seconds, wall-clock seconds) of one command, its children included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "run.py"), *words], check=True, capture_output=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    return after.ru_utime - before.ru_utime, wall


def several_methods(model: str, limit: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The same runs as separate commands, as one command, and sharing image features."""
    common = ["--model", model, "--ratio", "0.111", "--batch-size", "32", *limit]
    out: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        parts = [spent([*common, "--method", method, "--output", f"{folder}/apart"]) for method in METHODS]
        out["one command each"] = (sum(cpu for cpu, _ in parts), sum(wall for _, wall in parts))
        out["one command"] = spent([*common, "--method", *METHODS, "--output", f"{folder}/together"])
        sharing = [*SHARING, "--output", f"{folder}/shared"]
        out["one command, --share-vision 2"] = spent([*common, "--method", *METHODS, *sharing])
    return out


def batches(model: str, limit: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """By method and batch size: rows per second of `generate`, by the records' own times; of the whole command, in CPU
    and in wall-clock seconds, without those of a command that answers one row of each benchmark.
    """
    out = {}
    for method in (("none",), ("random-pre", "--ratio", "0.111"), ("random-pre", "--ratio", "0.111", *SHARING)):
        for size in (1, 16):
            words = ["--model", model, "--method", *method, "--batch-size", str(size)]
            with tempfile.TemporaryDirectory() as folder:
                few = spent([*words, "--output", f"{folder}/few", "--limit", "1"])
                took = spent([*words, "--output", f"{folder}/all", *limit])
                (record,) = (json.loads(file.read_text()) for file in Path(folder).glob("all/*/record.json"))
            data = record["datasets"].values()
            rows, total = sum(entry["rows"] for entry in data), sum(total_time(entry) for entry in data)
            commands = ((rows - len(data)) / (after - before) for before, after in zip(few, took, strict=True))
            out[f"{' '.join(method)}, batch size {size}"] = (rows / total if total else math.nan, *commands)
    return out


def total_time(entry: dict[str, Any]) -> float:
    """Seconds of `generate` on one benchmark; 0 where none were stored."""
    timing = entry.get("timing")
    return float(timing["total"]["total"]) if timing else 0.0


def engine(model: str, rounds: int = 100) -> dict[str, tuple[float, float]]:
    """Median CPU milliseconds of `generate` (one row, 8 tokens): bare, and how much more inside the engine."""
    import torch
    from PIL import Image

    from uniprune.benchmark import Part, Request
    from uniprune.catalog import find_model
    from uniprune.chat import Chat
    from uniprune.encoding import Encoder
    from uniprune.loading import load, place

    torch.set_num_threads(1)
    loaded = load(find_model(model), place())
    chat = Chat(loaded)
    picture = Part(image=Image.effect_noise((96, 96), 60).convert("RGB"))
    request = Request("0", (picture, Part(text="What is the word?")), "What is the word?", max_new_tokens=8)
    row = Encoder(loaded.processor).encode(request)
    found = {model: in_turn(loaded.model, lambda: chat.generate([row]), rounds)}
    small = loaded.family.specimen((12, 12))
    heads = {"num_attention_heads": 32, "num_key_value_heads": 32}  # as wide as the specimen's
    wide = small.model("sdpa", hidden_size=512, intermediate_size=1408, num_hidden_layers=10, **heads)
    prompt = small.batch([small.prompt(torch.Generator().manual_seed(0), [(12, 12)], before=5, question=7)])

    def generate() -> None:
        wide.generate(**prompt, max_new_tokens=8, do_sample=False)

    found["10 layers of width 512"] = in_turn(wide, generate, rounds // 2)
    return found


def in_turn(model: Any, call: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median CPU milliseconds of `call` bare, and of the difference to the call inside the engine right behind it."""
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
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny-llava")
    parser.add_argument("--limit", help="rows per benchmark (default: all)")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="questions (default: all)")
    args = parser.parse_args()
    limit = ["--limit", args.limit] if args.limit else []
    if "sharing" in args.part:
        print(f"{args.model}, {len(METHODS)} methods: CPU s, wall-clock s")
        for name, (cpu, wall) in several_methods(args.model, limit).items():
            print(f"  {name:48} {cpu:7.1f} {wall:7.1f}", flush=True)
    if "batches" in args.part:
        print(f"{args.model}, rows per second: generate, command by CPU time, by wall clock")
        for name, rates in batches(args.model, limit).items():
            print(f"  {name:48}", *(f"{rate:7.1f}" for rate in rates), flush=True)
    if "engine" in args.part:
        print("generate, CPU ms: bare, more inside the engine at ratio 1")
        for name, (bare, more) in engine(args.model).items():
            print(f"  {name:48} {bare:7.2f} {more:+7.3f} ({100 * more / bare:+.2f} %)", flush=True)


if __name__ == "__main__":
    main()
