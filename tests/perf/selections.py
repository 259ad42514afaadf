"""How long selections take beside the published algorithm and the work they cannot avoid.

    python -m tests.perf.selections --json selections.json

Processor time of one thread, the best of a few repetitions that take turns, so that other processes hardly matter.
Methods whose selection is one sort (FastV, Random, FoPru's ranks, …) are left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from methods._mustdrop import similar_windows
from methods.cdpruner import conditional_kernel
from methods.dart import least_similar, quotas
from methods.gprune import graph_scores
from methods.vispruner import important_and_diverse
from methods.zspaprune import core_and_diverse, relevance
from tests.perf import published
from uniprune.clustering import density_peaks
from uniprune.greedy import dpp_map, farthest_points
from uniprune.selection import cosine_distance, group_means, merge_with_background, top_k

GRIDS = {256: (16, 16), 576: (24, 24), 1280: (32, 40), 2880: (48, 60)}
WIDTHS = (1024, 3584)
RATIO = 1 / 9
Work = Callable[[], Any]


@dataclass(frozen=True)
class Contest:
    """One selection at one size.

    Attributes:
        method: name. ours, published: the two ways to make it. unavoidable: what any way must compute.
    """

    method: str
    ours: Work
    published: Work
    unavoidable: Work


@dataclass(frozen=True)
class Row:
    """Milliseconds of one contest at N tokens of D numbers."""

    method: str
    tokens: int
    width: int
    ours: float
    published: float
    unavoidable: float

    @property
    def speedup(self) -> float:
        """Published over ours."""
        return self.published / self.ours

    @property
    def overhead(self) -> float:
        """Ours over what cannot be avoided."""
        return self.ours / self.unavoidable


def contests(tokens: int, width: int) -> Iterator[Contest]:
    """All selections on clustered random tokens: eight centres, and noise of half their size."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, width, generator=generator)[torch.arange(tokens) % 8]
    x = x + 0.5 * torch.randn(tokens, width, generator=generator)
    keys, prompt = torch.randn(tokens, width, generator=generator), torch.randn(12, width, generator=generator)
    attention = torch.rand(tokens, generator=generator) / tokens
    weights = torch.rand(tokens, generator=generator)
    keep, unit, grid = round(tokens * RATIO), F.normalize(x, dim=-1), GRIDS[tokens]
    core, pivots, visual = keep // 5, torch.cat([x[:4], prompt[:4]]), torch.arange(4)
    anchors, pool = top_k(attention, keep - 1), x[: int(0.3 * (tokens - keep)) + 1]
    clusters = len(pool) // 10 + 1

    def product() -> Tensor:
        return unit @ unit.T

    def product64(wide: Tensor = unit.double()) -> Tensor:  # noqa: B008  converted once
        return wide @ wide.T

    yield Contest(
        "divprune",
        lambda: farthest_points(cosine_distance(x), keep),
        lambda: published.divprune(x, keep),
        product,
    )
    yield Contest(
        "cdpruner",
        lambda: dpp_map(conditional_kernel(x, weights), keep),
        lambda: published.cdpruner(x, weights, keep),
        product,
    )
    yield Contest(
        "zspaprune",
        lambda: core_and_diverse(x, relevance(x, prompt, "mean"), core, keep),
        lambda: published.zspaprune(x, prompt, core, keep),
        product,
    )
    yield Contest(
        "gprune",
        lambda: top_k(graph_scores(x, 0.5, 0.03, 5), keep),
        lambda: published.gprune(x, keep),
        product,
    )
    yield Contest(
        "vispruner",
        lambda: important_and_diverse(x, attention, keep // 2, keep, 8),
        lambda: published.vispruner(x.double(), attention, keep),
        product64,
    )
    yield Contest(
        "prumerge",
        lambda: merge_with_background(x, top_k(attention, keep - 1), keys, attention, 32),
        lambda: published.prumerge(x, keys, attention, keep),
        lambda: (keys[anchors] @ keys.T) @ x,
    )
    yield Contest(
        "dart",
        lambda: least_similar(x, pivots, visual, quotas(keep, 4, 8, released=False)),
        lambda: published.dart(x, pivots, visual.tolist(), keep),
        lambda: pivots @ F.normalize(x, dim=-1).T,
    )
    yield Contest(
        "sparsevlm",
        lambda: group_means(pool, density_peaks(pool, clusters)[1], clusters),
        lambda: published.sparsevlm(pool, clusters),
        lambda: pool @ pool.T,
    )
    yield Contest(
        "mustdrop",
        lambda: similar_windows(x, [(1, *grid)], 3, 0.8),
        lambda: published.mustdrop(x, *grid),
        lambda: x.square().sum(1),
    )


def measure(contest: Contest, tokens: int, width: int, seconds: float) -> Row:
    """Best times of the three, taking turns, at least twice and for about `seconds`."""
    best = dict.fromkeys(("ours", "published", "unavoidable"), float("inf"))
    start, rounds = time.perf_counter(), 0
    while rounds < 2 or time.perf_counter() - start < seconds:
        rounds += 1
        for name in best:
            before = time.thread_time()
            getattr(contest, name)()
            best[name] = min(best[name], 1000 * (time.thread_time() - before))
    return Row(contest.method, tokens, width, **best)


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| method | N | D | ours, ms | published, ms | unavoidable, ms | published / ours | ours / unavoidable |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.method} | {r.tokens} | {r.width} | {r.ours:.2f} | {r.published:.2f} | {r.unavoidable:.2f} "
        f"| {r.speedup:.1f} | {r.overhead:.2f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=list(GRIDS), choices=list(GRIDS), metavar="N")
    parser.add_argument("--width", nargs="+", type=int, default=list(WIDTHS), metavar="D")
    parser.add_argument("--method", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--seconds", type=float, default=1.0, help="per line of the table (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with torch.inference_mode():
        for width in options.width:
            for tokens in options.tokens:
                for contest in contests(tokens, width):
                    if options.method is None or contest.method in options.method:
                        rows.append(measure(contest, tokens, width, options.seconds))
                        sys.stderr.write(f"{rows[-1].method} {tokens} x {width}\n")
    rows.sort(key=lambda row: (row.method, row.width, row.tokens))
    sys.stdout.write(table(rows))
    if options.json is not None:
        machine = {"torch": torch.__version__, "python": platform.python_version(), "processor": platform.machine()}
        options.json.write_text(
            json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
