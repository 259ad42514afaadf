"""Cost of reading and comparing many stored runs: CPU seconds by step, and peak memory.

    python -m tests.perf.comparisons FOLDER --runs 1000 --rows 100

makes the runs once: per 100 of them one model, un-pruned and with eleven methods at nine ratios, on ten benchmarks.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from tests.helpers.records import dataset, run, score, timed, tokens
from uniprune.results.leaderboard import leaderboard
from uniprune.results.records import RunRecord
from uniprune.results.store import Store

T = TypeVar("T")
BENCHMARKS, METHODS, RATIOS = 10, 11, 9


def made_up(runs: int, rows: int) -> list[RunRecord]:
    """Return runs whose answers agree on most rows, as those of one model do."""
    rng, found = np.random.default_rng(0), []
    points = [("none", 1.0)] + [(f"m{m}", (r + 1) / 10) for r in range(RATIOS) for m in range(METHODS)]
    for number in range(runs):
        model, (method, ratio) = number // len(points), points[number % len(points)]
        entries = {}
        for b in range(BENCHMARKS):
            easy = np.random.default_rng([model, b]).random(rows) < 0.6
            credits = np.where(rng.random(rows) < 0.9, easy, ~easy).astype(float).tolist()
            entries[f"b{b}"] = dataset(
                score(credits), rows=rows, ledger=tokens(576 * ratio, initial=576.0), timing=timed(0.1, rows)
            )
        found.append(run(method, entries, ratio=ratio, model=f"model{model}", weights=f"w{model}"))
    return found


def step(name: str, work: Callable[[], T]) -> T:
    """Do a piece of work and print its CPU seconds and the memory in use at most until then."""
    before = time.process_time()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: {time.process_time() - before:.2f} s of CPU, peak {peak:.0f} MB", flush=True)
    return result


def main() -> None:
    """Make the runs if the folder is new, then read and rank them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    args = parser.parse_args()
    store = Store(args.folder)
    if not args.folder.exists():
        for record in made_up(args.runs, args.rows):
            store.write(record)
        print("made; call again to measure")
        return
    profile = cProfile.Profile()
    if args.profile:
        profile.enable()
    doubts: list[str] = []
    records = step("read", lambda: store.read_all(doubts.append))
    table = step("rank", lambda: leaderboard(records))
    text = step("write", table.csv)
    profile.disable()
    print(f"{len(records)} runs, {len(text)} characters")
    if args.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
