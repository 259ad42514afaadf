"""Cost and gain of `--workers`: `python -m tests.perf.workers --model tiny-qwen2.5-vl` (not part of the test suite).

Rows with a photo of 1024 x 1024 pixels each are run, and only prepared at the size of a real model's pixels, by the
process that runs the model and by workers ahead of it.
"""

from __future__ import annotations

import argparse
import io
import time
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # importing it imports torch
    from uniprune.evaluation.dataset import Request


def photos(count: int) -> list[Request]:
    """Make rows about JPEG images of 1024 x 1024 pixels, not yet decoded."""
    from uniprune.evaluation.dataset import Request
    from uniprune.modeling.messages import Part

    requests = []
    for i in range(count):
        image, text = Image.open(io.BytesIO(_photo(i % 8))), f"question {i}: what is the word ?"
        requests.append(Request(str(i), partial(tuple, (Part(image=image), Part(text=text))), text, max_new_tokens=4))
    return requests


@cache
def _photo(seed: int) -> bytes:
    """Make a JPEG file of 0.3 MB."""
    noise = np.random.default_rng(seed).integers(0, 256, (128, 128, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((1024, 1024), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def workers(model: str, rows: int = 96, repeats: int = 5) -> dict[str, tuple[float, float]]:
    """Measure the least (wall-clock, CPU seconds of the process that runs the model) by number of workers, in turn."""
    import torch

    from uniprune.evaluation.processing import RequestEncoder
    from uniprune.evaluation.runner import Runner
    from uniprune.evaluation.workers import windows
    from uniprune.modeling.catalog import find_model
    from uniprune.modeling.loading import load, place
    from uniprune.registry import METHODS as REGISTRY

    torch.set_num_threads(1)
    loaded, large = (load(find_model(name), place()) for name in (model, "tiny-internvl"))
    images = large.processor.image_processor  # as of InternVL3: up to 12 tiles and a thumbnail, 24 MB here
    images.size, images.crop_to_patches, images.max_patches = {"height": 448, "width": 448}, True, 12

    def answer(count: int) -> None:
        with Runner(loaded, REGISTRY.get("none")(), batch_size=8, workers=count) as answerer:
            assert sum(map(len, answerer.predictions(photos(rows)))) == rows

    def prepare(count: int) -> None:
        for portion in windows(RequestEncoder(large.processor), photos(rows), 8, count):
            assert all(row.inputs["pixel_values"].any() for row in portion)

    took: dict[str, list[tuple[float, float]]] = {}
    for _ in range(repeats):
        for work in (answer, prepare):
            for count in (0, 1, 2):
                cpu, wall = time.process_time(), time.perf_counter()
                work(count)
                spent_here = (time.perf_counter() - wall, time.process_time() - cpu)
                took.setdefault(f"{work.__name__}, {count} workers", []).append(spent_here)
    return {name: (min(wall for wall, _ in times), min(cpu for _, cpu in times)) for name, times in took.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny-qwen2.5-vl")
    print("96 rows: wall-clock s, CPU s of the process that runs the model")
    for name, (wall, cpu) in workers(parser.parse_args().model).items():
        print(f"  {name:24} {wall:7.2f} {cpu:7.2f}")


if __name__ == "__main__":
    main()
