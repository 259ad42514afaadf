"""Answers under several methods and ratios, arranged as the panels of a sheet."""

from __future__ import annotations

import numpy as np

from uniprune.reports.overlays.answers import Choice, Drawn
from uniprune.reports.overlays.sheet import Panel, Sheet
from uniprune.results.predictions import Prediction

LONGEST = 120
"""Characters of an answer or question in captions."""


def sheet_of(drawn: Drawn, maps: bool = False, several: bool = False) -> Sheet:
    """Return the sheet of a row.

    Args:
        drawn: the row and what was chosen of it.
        maps: whether the scores that methods read are drawn, too.
        several: whether captions name the model.
    """
    found = [[panel for choice in line for panel in panels(choice, maps, several)] for line in drawn.lines]
    models = dict.fromkeys(choice.model for line in drawn.lines for choice in line)
    title = (f"{drawn.row.name} · {', '.join(models)}", short(drawn.row.asked))
    return Sheet(title, drawn.pictures, tuple(tuple(line) for line in found if line))


def panels(choice: Choice, maps: bool, several: bool) -> list[Panel]:
    """Return a panel per pruning point, and per score that the method read if `maps`."""
    selections, answer, label = choice.answer.selections, choice.answer, choice.label(several)
    stages = [(stage.layer, selections.kept(number)) for number, stage in enumerate(selections.stages)]
    stages = stages or [(0, selections.kept())]
    made = []
    for layer in dict.fromkeys([*(layer for layer, _ in answer.maps), *(layer for layer, _ in stages)]):
        for (where, name), values in answer.maps.items() if maps or choice.only_maps else ():
            if where == layer:
                caption = (label, name, f"highest value {np.nanmax(values):.2g}")
                made.append(Panel(caption, selections, np.ones(selections.tokens, bool), heat=values))
        for where, kept in [] if choice.only_maps else stages:
            if where == layer:
                merged = answer.merged(layer)
                before = f"before layer {layer}: " * (layer > 0 or len(stages) > 1)
                answered = [f"→ {short(answer.prediction.prediction) or '(empty answer)'}"] * (where == stages[-1][0])
                changed = f" ({answer.prediction.initial} before the image was changed)" * (
                    answer.prediction.initial != len(kept)
                )
                lines = (label, f"{before}{int(kept.sum())} of {len(kept)} tokens{changed}", *answered)
                made.append(Panel(lines, selections, kept, None if merged is None else merged & kept))
    return made


def cost(prediction: Prediction) -> str:
    """Return the numbers of an answer for a terminal."""
    entering = prediction.visual_tokens or [0]
    parts = [f"{sum(entering) / len(entering):.1f} visual tokens per layer on average"]
    if prediction.flops is not None:
        parts.append(f"{prediction.flops.total / 1e9:.3g} GFLOPs")
    return ", ".join(parts)


def short(text: str) -> str:
    """Return a text in one line, cut to `LONGEST` characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
