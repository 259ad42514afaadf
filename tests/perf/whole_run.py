"""How long whole evaluations take: `python -m tests.perf.whole_run --model tiny-llava` (not part of the test suite).

Three questions, each answered with user-mode CPU seconds and wall-clock seconds of real commands on the mini suite:

* several methods: one command each, all in one command, and all in one command that shares image features;
* rows per second at batch size 1 and 16;
* `generate` on the un-pruned model, bare and inside the engine at keep ratio 1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
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
        sharing = ["--share-vision", "2", "--output", f"{folder}/shared"]
        out["one command, --share-vision 2"] = spent([*common, "--method", *METHODS, *sharing])
    return out


def batches(model: str, limit: Sequence[str]) -> dict[str, float]:
    """Rows per second of `generate` by batch size, from the records' own times."""
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 16):
            output = Path(folder) / str(size)
            spent(["--model", model, "--method", "none", "--batch-size", str(size), "--output", str(output), *limit])
            (record,) = (json.loads(file.read_text()) for file in output.glob("*/record.json"))
            times = [entry["timing"] for entry in record["datasets"].values()]
            out[f"batch size {size}"] = sum(t["rows"] for t in times) / sum(t["total"]["total"] for t in times)
    return out


def engine(model: str, repeats: int = 60) -> dict[str, float]:
    """Median milliseconds of `generate` (one row, 8 tokens), bare and inside the engine, taken in turn."""
    import torch
    from PIL import Image

    from uniprune.benchmark import Part, Request
    from uniprune.catalog import find_model
    from uniprune.chat import Chat
    from uniprune.encoding import Encoder
    from uniprune.engine import prune
    from uniprune.loading import load, place
    from uniprune.registry import METHODS as REGISTRY

    torch.set_num_threads(1)
    loaded = load(find_model(model), place())
    chat = Chat(loaded)
    picture = Part(image=Image.effect_noise((96, 96), 60).convert("RGB"))
    request = Request("0", (picture, Part(text="What is the word?")), "What is the word?", max_new_tokens=8)
    row = Encoder(loaded.processor).encode(request)
    keep_all = REGISTRY.get("divprune")(ratio=1.0)
    took: dict[str, list[float]] = {"bare": [], "engine, ratio 1": []}
    for _ in range(repeats):
        for name, times in took.items():
            start = time.perf_counter()
            if name == "bare":
                chat.generate([row])
            else:
                with prune(loaded.model, keep_all):
                    start = time.perf_counter()
                    chat.generate([row])
            times.append(1000 * (time.perf_counter() - start))
    return {name: median(times[5:]) for name, times in took.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny-llava")
    parser.add_argument("--limit", help="rows per benchmark (default: all)")
    args = parser.parse_args()
    limit = ["--limit", args.limit] if args.limit else []
    print(f"{args.model}, {len(METHODS)} methods: CPU s, wall-clock s")
    for name, (cpu, wall) in several_methods(args.model, limit).items():
        print(f"  {name:32} {cpu:7.1f} {wall:7.1f}")
    print("rows per second of generate")
    for name, rate in batches(args.model, limit).items():
        print(f"  {name:32} {rate:7.1f}")
    print("generate, ms")
    for name, ms in engine(args.model).items():
        print(f"  {name:32} {ms:7.2f}")


if __name__ == "__main__":
    main()
