"""Pictures of a tuning comparison, as SVG text: the plane over training, trajectories, kept and removed tokens."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from uniprune.tuning.data import Sample
from uniprune.tuning.journal import StepLine
from uniprune.tuning.summary import QUADRANTS, Finished, by_pair

QUADRANT_COLOURS = {0: "#b8b8b8", 1: "#c1272d", 2: "#e8871e", 3: "#4d7ea8", 4: "#2e8b57"}
PALETTE = ("#3b6fb6", "#d1495b", "#edae49", "#3a7d44", "#7b5ea7", "#00798c", "#8d5524", "#666666", "#c06ba8", "#222222")


def planes(steps: Sequence[StepLine], kind_of: Mapping[int, str], panels: int = 3) -> str | None:
    """Scatter of perplexity and entropy, one column per part of the training; None where no plane was measured.

    Top row: quadrants in their batches. Bottom row: kinds, where the data has them. Kept samples are filled.
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
            (math.log(b.perplexity[i]), b.entropy[i], b.quadrant[i], kind_of.get(b.index[i], ""), i in b.kept)
            for line in part for b in line.batches if b.quadrant and b.perplexity and b.entropy
            for i in range(len(b.index))
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
    """Dropped samples as faint rings, kept ones filled and on top."""
    for kept in (False, True):
        mine = [p for p in points if p[4] == kept]
        colours = [key(p) for p in mine]
        axis.scatter(
            [p[0] for p in mine], [p[1] for p in mine], s=22 if kept else 12, linewidths=0.6,
            facecolors=colours if kept else "none", edgecolors="white" if kept else colours,
            alpha=0.95 if kept else 0.55,
        )  # fmt: skip
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)


def legend(axis: Any, colours: Mapping[str, str]) -> None:
    """Names of colours."""
    for name, colour in colours.items():
        axis.scatter([], [], color=colour, s=22, label=name)
    axis.legend(fontsize=8, frameon=False)


def trajectories(runs: Sequence[Finished]) -> str | None:
    """Mean perplexity and entropy of the probe samples over training, one line per pair (Figure 8 of the paper)."""
    groups = {label: group for label, group in by_pair(runs).items() if group[0].journal.probes}
    if not groups:
        return None
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (label, group) in enumerate(groups.items()):
        for axis, name, transform in ((left, "perplexity", math.log), (right, "entropy", float)):
            found: dict[int, list[float]] = {}
            for run in group:
                for probe in run.journal.probes:
                    values = [transform(v) for v in getattr(probe, name)]
                    found.setdefault(probe.step, []).append(sum(values) / len(values))
            steps = sorted(found)
            axis.plot(
                steps, [sum(found[s]) / len(found[s]) for s in steps],
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


def removed_tokens(
    steps: Sequence[StepLine], samples: Mapping[int, Sample], tokenizer: Any, count: int = 4
) -> str | None:
    """HTML of samples whose tokens were removed, from the first, middle and last such steps; None without any."""
    cases = [(line.step, b.index[place], b.quadrant[place] if b.quadrant else None, gone)
             for line in steps for b in line.batches for place, gone in b.removed.items()]  # fmt: skip
    if not cases:
        return None
    spread = sorted({round(i * (len(cases) - 1) / max(1, 3 * count - 1)) for i in range(3 * count)})
    return "\n".join(_case(*cases[i], samples, tokenizer) for i in spread)


def _case(step: int, index: int, quadrant: int | None, gone: list[int], samples: Mapping[int, Sample], tok: Any) -> str:
    """One sample with its prompt in grey and removed tokens struck out in red."""
    sample = samples[index]
    answer = {int(p): place for place, p in enumerate(sample.answer)}
    words = []
    for position, token in enumerate(sample.ids.tolist()):
        place = answer.get(position)
        look = "prompt" if place is None else "gone" if place in gone else "kept"
        words.append(f'<span class="{look}">{html.escape(tok.decode([token]))}</span>')
    about = f"step {step + 1}, row {index}" + (f", {QUADRANTS[quadrant]}" if quadrant else "")
    about += f", {sample.kind}" if sample.kind else ""
    return f'<p class="case"><b>{html.escape(about)}</b><br>{" ".join(words)}</p>'


def svg(figure: Figure) -> str:
    """The figure as an SVG element."""
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tuning"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
