"""Figures of a tuning comparison, as SVG text: the plane over training, and trajectories of the probe samples."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from uniprune.tuning.step_log import StepLine
from uniprune.tuning.summary import QUADRANTS, FinishedRun, by_pair

QUADRANT_COLOURS = {0: "#b8b8b8", 1: "#c1272d", 2: "#e8871e", 3: "#4d7ea8", 4: "#2e8b57"}
PALETTE = ("#3b6fb6", "#d1495b", "#edae49", "#3a7d44", "#7b5ea7", "#00798c", "#8d5524", "#666666", "#c06ba8", "#222222")


def planes(steps: Sequence[StepLine], kind_of: Mapping[int, str], panels: int = 3) -> str | None:
    """Draw perplexity and entropy, one column per part of the training; None if no plane was measured.

    Top row: quadrants in their batches. Bottom row: kinds, if the data has them. Kept samples are filled. Samples
    without a finite perplexity are left out; `count_problems` counts them.
    """
    if not any(batch.quadrant for line in steps for batch in line.batches):
        return None
    size = math.ceil(len(steps) / panels)
    parts = [steps[i : i + size] for i in range(0, len(steps), size)]
    kinds = sorted(set(kind_of.values()))
    colour = dict(zip(kinds, PALETTE, strict=False))
    rows = 2 if kinds else 1
    figure = Figure(figsize=(4.2 * len(parts), 3.5 * rows), layout="constrained")
    axes = figure.subplots(rows, len(parts), squeeze=False, sharex=True, sharey=True)
    for column, part in enumerate(parts):
        points = [
            (math.log(error), entropy, b.quadrant[i], kind_of.get(b.index[i], ""), i in b.kept)
            for line in part for b in line.batches if b.quadrant and b.perplexity and b.entropy
            for i, (error, entropy) in enumerate(zip(b.perplexity, b.entropy, strict=True))
            if error is not None and entropy is not None
        ]  # fmt: skip
        for row in range(rows):
            key = (lambda p: QUADRANT_COLOURS[p[2]]) if row == 0 else (lambda p: colour.get(p[3], "#999999"))
            draw_points(axes[row][column], points, key)
        axes[0][column].set_title(f"steps {part[0].step + 1}–{part[-1].step + 1}", fontsize=10)
        axes[-1][column].set_xlabel("log perplexity (error)")
    for row in range(rows):
        axes[row][0].set_ylabel("entropy (uncertainty)")
    legend(axes[0][-1], {QUADRANTS[q]: QUADRANT_COLOURS[q] for q in (1, 2, 3, 4, 0)})
    if kinds:
        legend(axes[1][-1], colour)
    return svg(figure)


def draw_points(axis: Any, points: Sequence[tuple[float, float, int, str, bool]], key: Any) -> None:
    """Draw dropped samples as faint rings, and kept ones filled and on top."""
    for kept in (False, True):
        group = [p for p in points if p[4] == kept]
        colours = [key(p) for p in group]
        axis.scatter(
            [p[0] for p in group], [p[1] for p in group], s=22 if kept else 12, linewidths=0.6,
            facecolors=colours if kept else "none", edgecolors="white" if kept else colours,
            alpha=0.95 if kept else 0.55,
        )  # fmt: skip
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)


def legend(axis: Any, colours: Mapping[str, str]) -> None:
    """Add a legend: name -> colour."""
    handles = [axis.scatter([], [], color=colour, s=22) for colour in colours.values()]
    # Names from data may hold "$", which would start a formula.
    axis.legend(handles, [name.replace("$", r"\$") for name in colours], fontsize=8, frameon=False)


def trajectories(runs: Sequence[FinishedRun]) -> str | None:
    """Draw mean perplexity and entropy of the probe samples over training, a line per pair (Figure 8 of the paper)."""
    groups = {label: group for label, group in by_pair(runs).items() if group[0].step_log.probes}
    if not groups:
        return None
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (label, group) in enumerate(groups.items()):
        for axis, name, transform in ((left, "perplexity", math.log), (right, "entropy", float)):
            measured: dict[int, list[float]] = {}
            for run in group:
                for probe in run.step_log.probes:
                    values = [transform(v) for v in getattr(probe, name) if v is not None]
                    if values:
                        measured.setdefault(probe.step, []).append(sum(values) / len(values))
            steps = sorted(measured)
            axis.plot(
                steps, [sum(measured[s]) / len(measured[s]) for s in steps],
                label=label, color=PALETTE[number % len(PALETTE)],
                lw=2.4 if group[0].record.choice.role == "method" else 1.3,
                ls="--" if group[0].record.choice.role == "whole" else "-",
            )  # fmt: skip
    for axis, name in ((left, "mean log perplexity"), (right, "mean entropy")):
        axis.set_xlabel("optimizer step")
        axis.set_title(f"{name} of the probe samples", fontsize=10)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    right.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(figure)


def svg(figure: Figure) -> str:
    """Render a figure as an SVG element."""
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tuning"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
