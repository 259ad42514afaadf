"""Compare rows of `bench` with the targets of a fast harness (not part of the test suite).

    python run.py bench --random-weights --model qwen2.5-vl-7b --method random-pre divprune fastv visionzip \\
      --ratio 0.111 --tokens 1280 --repeats 30 --output results/bench.jsonl
    python -m tests.perf.targets results/bench.jsonl

At 1280 visual tokens or eight prompts and more, and keep ratios up to 1/9: a prefill reaches 70 % of the speed-up that
operations allow, two methods of equal tokens differ by at most 2 %, a method that uses features takes at most 1 % of
the un-pruned prefill, one that uses attention 3 % and at most 2 % more memory than the un-pruned model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.latency.rows import BenchFile, BenchResult, BenchRow

MOST_KEPT, LEAST_TOKENS, LEAST_BATCH = 0.112, 1280, 8


@dataclass(frozen=True)
class TargetResult:
    """One target on one row: `value` must not exceed `limit`, or not fall below it if `least`."""

    where: str
    method: str
    target: str
    value: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Return whether the target is reached."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self) -> str:
        """Format a line of a Markdown table."""
        sign = "≥" if self.least else "≤"
        value = f"{self.value:.1%} ({sign} {self.limit:.0%})"
        return f"| {self.where} | {self.method} | {self.target} | {value} | {'met' if self.met else 'MISSED'} |"


def verdicts(rows: Iterable[BenchRow]) -> Iterator[TargetResult]:
    """Evaluate all targets on the rows that are large enough."""
    groups: dict[str, dict[str, tuple[BenchRow, BenchResult]]] = {}
    for row in rows:
        setup = row.setup
        large = setup.visual >= LEAST_TOKENS or setup.batch >= LEAST_BATCH
        few = setup.method.kind == "none" or setup.ratio <= MOST_KEPT
        if row.measured is not None and row.vanilla is not None and large and few:
            alike = setup.model_dump_json(exclude={"method", "ratio"}) + row.vanilla.model_dump_json()
            groups.setdefault(alike, {})[setup.label] = row, row.measured
    for group in groups.values():
        setup = next(iter(group.values()))[0].setup
        where = f"{setup.model}, {setup.batch} x {setup.visual}, {setup.environment.device}"
        vanilla = group.pop("none", (None, None))[1]
        for label, (row, measured) in group.items():
            yield from _single(where, label, row, measured, vanilla)
        for (first, (_, a)), (second, (_, b)) in combinations(group.items(), 2):
            if a.layers == b.layers:
                times = sorted((a.median("prefill"), b.median("prefill")))
                yield TargetResult(
                    where, f"{first}, {second}", "prefills of equal tokens", times[1] / times[0] - 1, 0.02
                )


def _single(
    where: str, label: str, row: BenchRow, measured: BenchResult, vanilla: BenchResult | None
) -> Iterator[TargetResult]:
    """Evaluate the targets of one method."""
    setup = row.setup
    pruner = MethodSpec(setup.method.name, ratio=setup.ratio).pruner()  # settings change no kind of attention
    attention = any(stage.pruner.llm_attention for stage in pruner.schedule(len(measured.layers)))
    attention = attention or bool(pruner.vision_layers)
    first = min((layer for layer, _ in setup.method.stages), default=0)
    assert row.vanilla is not None  # rows without one are left out
    if first <= 2:
        yield TargetResult(where, label, "share of the ceiling", row.speedups["prefill achieved"], 0.7, least=True)
    share = measured.median("method") / row.vanilla.prefill
    yield TargetResult(where, label, "method time / vanilla prefill", share, 0.03 if attention else 0.01)
    if attention and vanilla is not None and measured.peak_bytes and vanilla.peak_bytes:
        yield TargetResult(
            where, label, "peak memory above vanilla", measured.peak_bytes / vanilla.peak_bytes - 1, 0.02
        )


def main() -> int:
    """Print the table; return 1 if a target is missed, exit with 2 if the file has no row to evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="file of `bench --output`")
    file = parser.parse_args().file
    try:
        found = list(verdicts(BenchFile(file).rows.values()))
    except UserError as error:
        parser.error(str(error))
    if not found:
        parser.error(f"{file} has no pruned row of {LEAST_TOKENS} visual tokens or {LEAST_BATCH} prompts")
    lines = ["| model, prompts x visual tokens, device | method | target | measured | |", "|---|---|---|---|---|"]
    sys.stdout.write("\n".join([*lines, *map(str, found)]) + "\n")
    return 0 if all(result.met for result in found) else 1


if __name__ == "__main__":
    sys.exit(main())
