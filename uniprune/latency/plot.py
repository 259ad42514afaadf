"""A plot of latency against visual tokens."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

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
    """Draw time to first token against visual tokens: a panel per model and batch, a line per method and ratio.

    Bars span the first to the third quartile.

    Raises:
        UserError: the file cannot be written, or its ending names no format.
    """
    import numpy as np
    from matplotlib.figure import Figure

    measured = [row for row in rows if row.measured is not None]
    panels = list(dict.fromkeys((row.setup.model, row.setup.batch) for row in measured))
    figure = Figure(figsize=(5.5 * max(1, len(panels)), 4.2), layout="constrained")
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    for axis, (model, batch) in zip(axes, panels, strict=False):
        lines: dict[str, list[tuple[int, list[float]]]] = {}
        for row in measured:
            if (row.setup.model, row.setup.batch) == (model, batch) and row.measured is not None:
                lines.setdefault(row.setup.label, []).append((row.setup.visual, row.measured.seconds["ttft"]))
        for label, points in lines.items():
            points.sort()
            quartiles = 1000 * np.array([np.percentile(seconds, [25, 50, 75]) for _, seconds in points])
            bars = [quartiles[:, 1] - quartiles[:, 0], quartiles[:, 2] - quartiles[:, 1]]
            axis.errorbar([n for n, _ in points], quartiles[:, 1], bars, marker="o", capsize=3, label=label)
        axis.set(title=f"{model}, batch {batch}", xlabel="visual tokens", ylabel="time to first token (ms)", ylim=0)
        axis.legend()
    with explain_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            figure.savefig(path, dpi=150)
        except ValueError as error:
            raise UserError(f"--plot {path}: {str(error).splitlines()[0]}") from error
