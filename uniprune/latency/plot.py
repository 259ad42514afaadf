"""A plot of speed-up and latency against visual tokens."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uniprune.errors import UserError
from uniprune.latency.rows import BenchRow
from uniprune.utils.files import explain_write


def check_plot(path: Path) -> None:
    """Check, before anything is measured, that a plot can be drawn.

    Raises:
        UserError: matplotlib is missing, or the file has no ending.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib, which is not installed; run `pip install matplotlib` or leave it out")
    if not path.suffix:
        raise UserError(f"--plot {path}: it needs an ending that names a format, as in {path}.png")


def plot(rows: Sequence[BenchRow], path: Path) -> None:
    """Draw net speed-up and time to first token against visual tokens: a column of panels per model and batch.

    A line is one method and ratio. Of the net speed-up, dashes are the ceiling by FLOPs; of times, bars span the first
    to the third quartile.

    Raises:
        UserError: the file cannot be written, or its ending names no format.
    """
    from matplotlib.figure import Figure

    measured = [row for row in rows if row.measured is not None]
    panels: dict[tuple[str, int], dict[str, list[BenchRow]]] = {}
    for row in sorted(measured, key=lambda row: row.setup.visual):
        lines = panels.setdefault((row.setup.model, row.setup.batch), {})
        lines.setdefault(row.setup.label, []).append(row)
    figure = Figure(figsize=(5.5 * max(1, len(panels)), 8), layout="constrained")
    axes = figure.subplots(2, max(1, len(panels)), squeeze=False)
    for (net, ttft), ((model, batch), lines) in zip(axes.T, panels.items(), strict=False):
        for number, (label, points) in enumerate(lines.items()):
            _net_line(net, points, label, f"C{number}")
            _ttft_line(ttft, points, label, f"C{number}")
        net.set(title=f"{model}, batch {batch}", ylabel="net speed-up of the prefill; dashes: ceiling", ylim=0)
        ttft.set(xlabel="visual tokens", ylabel="time to first token (ms)", ylim=0)
        ttft.legend()
    with explain_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            figure.savefig(path, dpi=150)
        except ValueError as error:
            raise UserError(f"--plot {path}: {str(error).splitlines()[0]}") from error


def _net_line(axis: Any, rows: Sequence[BenchRow], label: str, colour: str) -> None:
    """Draw the net speed-up of a method and its ceiling."""
    known = [(row.setup.visual, row.speedups) for row in rows if row.speedups]
    for part, style in (("speed-up", "o-"), ("ceiling", "--")):
        values = [speedups[f"net {part}"] for _, speedups in known]
        axis.plot([visual for visual, _ in known], values, style, color=colour, label=label)


def _ttft_line(axis: Any, rows: Sequence[BenchRow], label: str, colour: str) -> None:
    """Draw the time to the first token of a method, with its quartiles."""
    import numpy as np

    seconds = [row.measured.seconds["ttft"] for row in rows if row.measured is not None]
    quartiles = 1000 * np.array([np.percentile(one, [25, 50, 75]) for one in seconds])
    bars = [quartiles[:, 1] - quartiles[:, 0], quartiles[:, 2] - quartiles[:, 1]]
    visual = [row.setup.visual for row in rows]
    axis.errorbar(visual, quartiles[:, 1], bars, marker="o", capsize=3, label=label, color=colour)
