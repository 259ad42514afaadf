"""The pages of GPU measurements show what their raw rows hold."""

from __future__ import annotations

import pytest

from tests.helpers.paths import ROOT
from uniprune.latency.rows import BenchFile, BenchRow

FOLDER = ROOT / "docs" / "performance"
SPANS = ("vision", "method", "prefill", "ttft")


def line(row: BenchRow) -> str:
    """Return a row of the page's table."""
    assert row.measured is not None
    assert row.measured.peak_bytes is not None
    setup, speedups = row.setup, row.speedups
    vision, method, prefill, ttft = (
        1000 * row.measured.median(span) for span in ("vision", "method", "prefill", "ttft")
    )
    share, ceiling = f"{speedups['net achieved']:.0%}".replace("%", " %"), f"{speedups['net ceiling']:.2f}"
    net = "| " if setup.method.kind == "none" else f"{speedups['net speed-up']:.2f} | {share} of {ceiling} "
    return (
        f"| {setup.model}, {setup.batch} x {setup.visual} | {setup.method.name} | {vision:.1f} | {method:.2f} | "
        f"{prefill:.1f} | {ttft:.1f} | {row.measured.peak_bytes / 1e6:.0f} | {net}| {speedups['ttft speed-up']:.2f} |"
    )


@pytest.mark.parametrize(
    ("page", "rows"),
    [("h200.md", "h200-2026-11-27.jsonl"), ("h200-batched.md", "h200-2026-11-27-batched.jsonl")],
)
def test_the_table_is_that_of_the_rows(page: str, rows: str) -> None:
    lines = (FOLDER / page).read_text(encoding="utf-8").splitlines()
    shown = [one for one in lines if one.startswith("| ") and ", " in one.split("|")[1]]
    measured = BenchFile(FOLDER / rows).rows.values()
    assert [one for one in shown if not one.startswith("| model, ")] == list(map(line, measured))
