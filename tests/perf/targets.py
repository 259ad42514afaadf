"""Compare rows of `bench` with the targets of a fast harness (not part of the test suite).

    python run.py bench --random-weights --model qwen2.5-vl-7b --method random-pre divprune fastv visionzip \\
      --ratio 0.111 --tokens 1280 --batch 1 8 --output bench.jsonl
    python -m tests.perf.tower --model qwen2.5-vl-7b --tokens 1280 --batch 1 8 --output tower.jsonl
    python -m tests.perf.targets bench.jsonl --tower tower.jsonl

At keep ratios up to 1/9 and 576 visual tokens or more. Eight prompts and more: the net speed-up, un-pruned prefill /
(prefill + method), is 85 % of its ceiling for methods that use features and 75 % for those that use attention; none is
under 60 %, and none of the latter takes 2 % more memory than the un-pruned model. One prompt: the method takes at most
0.6 ms if it draws at random, 1.2 ms for DivPrune, CDPruner and FastV, 3 ms with several stages, 2.5 ms else. Methods of
equal tokens keep the GPU busy for equally long, within 1 %, in the prefill. With `bench --graphs`, one prompt of 1280
tokens reaches half of the ceiling, net. The vision tower of Qwen2.5-VL-7B is 2.5
times as fast as under transformers' sdpa for one image, 6 times for eight.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.latency.rows import BenchFile, BenchResult, BenchRow, BenchSetup
from uniprune.pruning.base import Pruner

MOST_KEPT, LEAST_TOKENS, LEAST_BATCH = 0.112, 576, 8
NET_FEATURES, NET_ATTENTION, NET_LEAST = 0.85, 0.75, 0.6
RANDOM, QUICK, OTHERS, STAGED = 0.6, 1.2, 2.5, 3.0
"""Most milliseconds of the method for one prompt."""
QUICK_METHODS = ("divprune", "cdpruner", "fastv")
"""Methods used most, whose time has a limit of its own."""
GRAPHS_OF = ("qwen2.5-vl-7b", 1280)
"""Model and visual tokens of the target of CUDA graphs."""
TOWER = {1: 2.5, 8: 6.0}
"""Images -> least factor by which the tower is faster than under transformers' sdpa."""
TOWER_MODEL = "qwen2.5-vl-7b"


@dataclass(frozen=True)
class TargetResult:
    """One target on one row: `value` must not exceed `limit`, or not fall below it if `least`."""

    where: str
    method: str
    target: str
    value: float
    limit: float
    least: bool = False
    unit: str = "%"

    @property
    def met(self) -> bool:
        """Return whether the target is reached."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self) -> str:
        """Format a line of a Markdown table."""
        sign = "≥" if self.least else "≤"
        form = (lambda x: f"{x:.1%}") if self.unit == "%" else lambda x: f"{x:.2f} {self.unit}"
        value = f"{form(self.value)} ({sign} {form(self.limit)})"
        return f"| {self.where} | {self.method} | {self.target} | {value} | {'met' if self.met else 'MISSED'} |"


def verdicts(rows: Iterable[BenchRow]) -> Iterator[TargetResult]:
    """Evaluate all targets on the rows of large prompts and few kept tokens."""
    groups: dict[str, dict[str, tuple[BenchRow, BenchResult]]] = {}
    for row in rows:
        setup = row.setup
        few = setup.method.kind == "none" or setup.ratio <= MOST_KEPT
        if row.measured is not None and row.vanilla is not None and setup.visual >= LEAST_TOKENS and few:
            alike = setup.model_dump_json(exclude={"method", "ratio"}) + row.vanilla.model_dump_json()
            groups.setdefault(alike, {})[setup.label] = row, row.measured
    for group in groups.values():
        setup = next(iter(group.values()))[0].setup
        where = f"{setup.model}, {setup.batch} x {setup.visual}, {setup.environment.device}"
        unpruned = group.pop("none", (None, None))[1]
        for label, (row, measured) in group.items():
            if setup.batch >= LEAST_BATCH:
                yield from _batch(where, label, row, measured, unpruned)
            elif setup.batch == 1:
                milliseconds = 1000 * measured.median("method")
                yield TargetResult(where, label, "method time", milliseconds, _most(row.setup), unit="ms")
                if row.graph_speedups and (setup.model, setup.visual) == GRAPHS_OF:
                    share = row.graph_speedups["net graphs achieved"]
                    yield TargetResult(where, label, "net speed-up of graphs / ceiling", share, 0.5, least=True)
        for (first, (_, a)), (second, (_, b)) in combinations(group.items(), 2):
            if a.layers == b.layers and a.busy and b.busy:
                times = sorted((a.busy["prefill"], b.busy["prefill"]))
                pair = f"{first}, {second}"
                yield TargetResult(where, pair, "busy times of equal tokens", times[1] / times[0] - 1, 0.01)


def _batch(
    where: str, label: str, row: BenchRow, measured: BenchResult, unpruned: BenchResult | None
) -> Iterator[TargetResult]:
    """Evaluate the targets of one method on several prompts."""
    attention, share = _reads_attention(row.setup, len(measured.layers)), row.speedups["net achieved"]
    least = NET_ATTENTION if attention else NET_FEATURES
    yield TargetResult(where, label, "net speed-up / ceiling", share, least, least=True)
    yield TargetResult(where, label, "net speed-up / ceiling, every method", share, NET_LEAST, least=True)
    if attention and unpruned is not None and measured.peak_bytes and unpruned.peak_bytes:
        more = measured.peak_bytes / unpruned.peak_bytes - 1
        yield TargetResult(where, label, "peak memory above un-pruned", more, 0.02)


def _most(setup: BenchSetup) -> float:
    """Return the most milliseconds that the method may take for one prompt."""
    if len(setup.method.stages) > 1:
        return STAGED
    if _pruner(setup).random:
        return RANDOM
    return QUICK if setup.method.name in QUICK_METHODS else OTHERS


def _reads_attention(setup: BenchSetup, layers: int) -> bool:
    """Return whether a method reads attention of the language model or of the tower."""
    pruner = _pruner(setup)
    return any(stage.pruner.llm_attention for stage in pruner.schedule(layers)) or bool(pruner.vision_layers)


def _pruner(setup: BenchSetup) -> Pruner:
    """Build the method; settings change neither its kind of attention nor its randomness."""
    return MethodSpec(setup.method.name, ratio=setup.ratio).pruner()


def tower_verdicts(rows: Iterable[Mapping[str, Any]]) -> Iterator[TargetResult]:
    """Evaluate the targets of the vision tower on lines of `tests.perf.tower --output`."""
    for row in rows:
        if row["model"] == TOWER_MODEL and row["batch"] in TOWER and row["tokens"] >= LEAST_TOKENS:
            where = f"{row['model']}, {row['batch']} x {row['tokens']}, {row['device']}"
            yield TargetResult(where, "", "tower against sdpa", row["ratio"], TOWER[row["batch"]], least=True, unit="x")


def main(arguments: list[str] | None = None) -> int:
    """Print the table; return 1 if a target is missed, exit with 2 if the files have no row to evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", help="files of `bench --output`")
    parser.add_argument("--tower", type=Path, metavar="FILE", help="file of `tests.perf.tower --output`")
    options = parser.parse_args(arguments)
    found: list[TargetResult] = []
    try:
        for file in options.files:
            found += verdicts(BenchFile(file).rows.values())
    except UserError as error:
        parser.error(str(error))
    if options.tower is not None and options.tower.exists():
        found += tower_verdicts(map(json.loads, options.tower.read_text().splitlines()))
    if not found:
        parser.error(f"no pruned row of {LEAST_TOKENS} visual tokens and a keep ratio up to {MOST_KEPT}")
    lines = ["| model, prompts x visual tokens, device | method | target | measured | |", "|---|---|---|---|---|"]
    met = sum(result.met for result in found)
    sys.stdout.write("\n".join([*lines, *map(str, found), "", f"{met} of {len(found)} targets met."]) + "\n")
    return 0 if met == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
