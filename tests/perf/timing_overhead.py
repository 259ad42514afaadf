"""Cost of timing an evaluation: `python -m tests.perf.timing_overhead --model tiny-llava` (not part of the suite).

A few batches of the mini suite are run with and without the timer, in turn and in changing order. CPU seconds of the
process, which other processes lengthen little, and wall-clock seconds are compared: the median ratio over pairs of
equal batches, with its 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from uniprune.engine import prune
from uniprune.engine.timer import Timer
from uniprune.evaluation.dataset import DataOptions
from uniprune.evaluation.generation import Generator
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.processing import EncodedRequest, RequestEncoder
from uniprune.modeling.catalog import find_model
from uniprune.modeling.loading import LoadedModel, load, place
from uniprune.pruning.base import Pruner
from uniprune.registry import BENCHMARKS


def batches(loaded: LoadedModel, data: str, size: int, count: int, folder: Path) -> list[list[EncodedRequest]]:
    """Encode the first rows of a benchmark in advance: encoding is not compared."""
    dataset = BENCHMARKS.get(data)(DataOptions(data_dir=folder, judge="rule"))
    encoder = RequestEncoder(loaded.processor)
    rows = [encoder.encode(request) for request in dataset.requests(size * count)]
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def one_pass(
    loaded: LoadedModel, chat: Generator, pruner: Pruner, rows: Sequence[list[EncodedRequest]], timed: bool
) -> list[tuple[float, float]]:
    """Measure (CPU, wall-clock) seconds of every batch, one after the other as in an evaluation."""
    out = []
    with ExitStack() as stack:
        timer = stack.enter_context(Timer(loaded.adapter)) if timed else None
        session = stack.enter_context(prune(loaded.model, pruner, timer=timer))
        for batch in rows:
            cpu, wall = time.process_time(), time.perf_counter()
            session.reports.clear()
            session.samples = tuple(row.info for row in batch)
            chat.generate(batch)
            if timer is not None:
                timer.sample()
            out.append((time.process_time() - cpu, time.perf_counter() - wall))
    return out


def pairs(run: Callable[[bool], list[tuple[float, float]]], rounds: int) -> np.ndarray:
    """Measure [rounds x batches, 2 clocks, untimed and timed] seconds."""
    found = []
    for number in range(rounds + 1):
        passes = {timed: run(timed) for timed in ((False, True) if number % 2 else (True, False))}
        if number:  # the first round warms up
            found.append(np.array([passes[False], passes[True]]).transpose(1, 2, 0))
    return np.concatenate(found)


def overhead(seconds: np.ndarray) -> tuple[float, float, float]:
    """Estimate the extra time in percent from [pairs, untimed and timed], with its 95 % interval."""
    ratios = seconds[:, 1] / seconds[:, 0]
    picks = np.random.default_rng(0).integers(len(ratios), size=(2000, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5])
    extra, low, high = (100 * (float(ratio) - 1) for ratio in (np.median(ratios), low, high))
    return extra, low, high


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny-llava")
    parser.add_argument("--method", default="fastv")
    parser.add_argument("--ratio", type=float, default=0.111)
    parser.add_argument("--data", default="mini-pope")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    loaded, method = load(find_model(args.model), place()), MethodSpec(args.method, ratio=args.ratio)
    chat, rows = Generator(loaded), batches(loaded, args.data, args.batch_size, args.batches, args.data_dir)
    seconds = pairs(lambda timed: one_pass(loaded, chat, method.pruner(), rows, timed), args.rounds)
    print(f"{args.model}, {args.method} {args.ratio:g}, {len(seconds)} pairs of batches of {args.batch_size} rows")
    for clock, name in enumerate(("CPU time", "wall clock")):
        extra, low, high = overhead(seconds[:, clock])
        print(f"  {name:12} timing adds {extra:+.2f} % (95 % interval {low:+.2f} to {high:+.2f} %)")


if __name__ == "__main__":
    main()
