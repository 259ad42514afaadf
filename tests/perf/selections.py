"""Times of selections beside the published algorithm and the work they cannot avoid.

    python -m tests.perf.selections --json selections.json --plot selections.png

On a CPU processor time of one thread, the best of a few repetitions that take turns, so that other processes hardly
matter; on a GPU the median time between events around each call. A first round does not count. Methods whose selection
is one sort (FastV, Random, FoPru's ranks, …) are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.perf import published
from uniprune.methods._dart import least_similar, quotas
from uniprune.methods._windows import similar_windows
from uniprune.methods.cdpruner import conditional_kernel
from uniprune.methods.gprune import graph_scores
from uniprune.methods.vispruner import important_and_diverse
from uniprune.methods.zspaprune import core_and_diverse, pooled
from uniprune.pruning.clustering import density_peaks
from uniprune.pruning.functional import cosine_distance, group_means, relevance, top_k, unit_vectors
from uniprune.pruning.greedy import dpp_map, farthest_points
from uniprune.pruning.merging import merge_with_background

GRIDS = {256: (16, 16), 576: (24, 24), 1280: (32, 40), 2880: (48, 60)}
WIDTHS = (1024, 3584)
RATIO = 1 / 9
Work = Callable[[], Any]


@dataclass(frozen=True)
class Contest:
    """One selection at one size.

    Attributes:
        method: name. ours, published: the two ways to make it. unavoidable: what any way must compute.
        symmetric: `unavoidable` is a symmetric matrix, of which half is enough.
    """

    method: str
    ours: Work
    published: Work
    unavoidable: Work
    symmetric: bool = False


@dataclass(frozen=True)
class Row:
    """Milliseconds of one contest at N tokens of D numbers."""

    method: str
    tokens: int
    width: int
    ours: float
    published: float
    unavoidable: float
    symmetric: bool

    @property
    def speedup(self) -> float:
        """Published over ours."""
        return self.published / self.ours

    @property
    def overhead(self) -> float:
        """Ours over what cannot be avoided."""
        return self.ours / self.unavoidable

    @property
    def least(self) -> float:
        """Milliseconds that any way needs: what cannot be avoided, or half of it."""
        return self.unavoidable / 2 if self.symmetric else self.unavoidable

    @property
    def bound(self) -> float:
        """The most that `speedup` could be."""
        return self.published / self.least


def contests(tokens: int, width: int, device: torch.device) -> Iterator[Contest]:
    """All selections on clustered random tokens: eight centres, and noise of half their size."""
    there: dict[str, Any] = {"generator": torch.Generator(device).manual_seed(0), "device": device}
    x = torch.randn(8, width, **there)[torch.arange(tokens, device=device) % 8]
    x = x + 0.5 * torch.randn(tokens, width, **there)
    keys, prompt = torch.randn(tokens, width, **there), torch.randn(12, width, **there)
    attention = torch.rand(tokens, **there) / tokens
    weights = torch.rand(tokens, **there)
    keep, unit, grid = round(tokens * RATIO), F.normalize(x, dim=-1), GRIDS[tokens]
    core, pivots, visual = keep // 5, torch.cat([x[:4], prompt[:4]]), torch.arange(4, device=device)
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
        symmetric=True,
    )
    yield Contest(
        "cdpruner",
        lambda: dpp_map(conditional_kernel(unit_vectors(x), weights), keep),
        lambda: published.cdpruner(x, weights, keep),
        product,
        symmetric=True,
    )
    yield Contest(
        "zspaprune",
        lambda: core_and_diverse(x, relevance(x, pooled(prompt, "mean"), torch.amax), core, keep),
        lambda: published.zspaprune(x, prompt, core, keep),
        product,
        symmetric=True,
    )
    yield Contest(
        "gprune",
        lambda: top_k(graph_scores(x, 0.5, 0.03, 5), keep),
        lambda: published.gprune(x, keep),
        product,
        symmetric=True,
    )
    yield Contest(
        "vispruner",
        lambda: important_and_diverse(x, attention, keep // 2, keep, 8),
        lambda: published.vispruner(x.double(), attention, keep),
        product64,
        symmetric=True,
    )
    yield Contest(
        "prumerge",
        lambda: merge_with_background(x, top_k(attention, keep - 1), keys, attention, 32),
        lambda: published.prumerge(x, keys, attention, keep),
        lambda: keys[anchors] @ keys.T,
    )
    yield Contest(
        "dart",
        lambda: least_similar(x, pivots, visual, quotas(keep - len(visual), len(pivots))),
        lambda: published.dart(x, pivots, visual.tolist(), keep),
        lambda: pivots @ x.T,
    )
    yield Contest(
        "sparsevlm",
        lambda: group_means(pool, density_peaks(pool, clusters)[1], clusters),
        lambda: published.sparsevlm(pool, clusters),
        lambda: pool @ pool.T,
        symmetric=True,
    )
    yield Contest(
        "mustdrop",
        lambda: similar_windows(x, [(1, *grid)], 3, 0.8),
        lambda: published.mustdrop(x, *grid),
        lambda: torch.linalg.vector_norm(x, dim=1),
    )


def processor_time(work: Work) -> float:
    """Milliseconds of this thread."""
    before = time.thread_time()
    work()
    return 1000 * (time.thread_time() - before)


def gpu_time(work: Work) -> float:
    """Milliseconds between two events on the current GPU, with all that `work` makes it wait for."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def measure(contest: Contest, tokens: int, width: int, seconds: float, device: torch.device) -> Row:
    """Times of the three, taking turns, at least twice and for about `seconds`."""
    clock, typical = (gpu_time, statistics.median) if device.type == "cuda" else (processor_time, min)
    ways = {"ours": contest.ours, "published": contest.published, "unavoidable": contest.unavoidable}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for work in ways.values():
        work()
    start = time.perf_counter()
    while len(times["ours"]) < 2 or time.perf_counter() - start < seconds:
        for name, work in ways.items():
            times[name].append(clock(work))
    best = {name: float(typical(taken)) for name, taken in times.items()}
    return Row(contest.method, tokens, width, **best, symmetric=contest.symmetric)


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown."""
    times = "| method | N | D | ours, ms | published, ms | unavoidable, ms |"
    lines = [f"{times} published / ours | at most | ours / unavoidable |", "|---|" + 8 * "---:|"]
    lines += [
        f"| {r.method} | {r.tokens} | {r.width} | {r.ours:.2f} | {r.published:.2f} | {r.unavoidable:.2f} "
        f"| {r.speedup:.1f} | {r.bound:.1f} | {r.overhead:.2f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Growth in N at one D: a panel per method with lines for ours, the published form and the least that is needed."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    methods = list(dict.fromkeys(row.method for row in rows))
    columns = min(3, len(methods))
    figure = Figure(figsize=(3.6 * columns, 2.8 * math.ceil(len(methods) / columns)), layout="constrained")
    axes = figure.subplots(math.ceil(len(methods) / columns), columns, squeeze=False).flatten()
    sizes = sorted({row.tokens for row in rows})
    for axis, method in zip(axes, methods, strict=False):
        own = sorted((row for row in rows if row.method == method), key=lambda row: row.tokens)
        for name, style in (("published", "s-"), ("ours", "o-"), ("least", "--")):
            axis.plot([row.tokens for row in own], [getattr(row, name) for row in own], style, label=name)
        axis.set(title=method, xscale="log", yscale="log", xlabel="tokens", ylabel="ms", xticks=sizes)
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    for axis in axes[len(methods) :]:
        axis.set_axis_off()
    axes[0].legend()
    figure.suptitle(f"selection of {RATIO:.1%} of the tokens, D = {rows[0].width}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, store and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=list(GRIDS), choices=list(GRIDS), metavar="N")
    parser.add_argument("--width", nargs="+", type=int, default=list(WIDTHS), metavar="D")
    parser.add_argument("--method", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--seconds", type=float, default=1.0, help="per line of the table (default: 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a picture per D, which is added to the file's name")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    device, rows = torch.device(options.device), []
    with torch.inference_mode():
        for width in options.width:
            for tokens in options.tokens:
                for contest in contests(tokens, width, device):
                    if options.method is None or contest.method in options.method:
                        rows.append(measure(contest, tokens, width, options.seconds, device))
                        sys.stderr.write(f"{rows[-1].method} {tokens} x {width}\n")
    rows.sort(key=lambda row: (row.method, row.width, row.tokens))
    sys.stdout.write(table(rows))
    if options.json is not None:
        processor = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
        machine = {"torch": torch.__version__, "python": platform.python_version(), "processor": processor}
        options.json.write_text(
            json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )
    if options.plot is not None:
        for width in options.width:
            name = options.plot.with_stem(f"{options.plot.stem}-{width}")
            plot([row for row in rows if row.width == width], name)


if __name__ == "__main__":
    main()
