"""One self-contained HTML page of kept tokens, with sliders over ratios and pruning points."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from uniprune.reports.overlays.answers import Choice, Drawn
from uniprune.reports.overlays.sheet import layers
from uniprune.results.kept_tokens import Selections
from uniprune.utils.json_text import to_json

PAGES = Path(__file__).parent / "pages"
LONGEST = 1024
"""Pixels of the longer side of pictures in the page."""
SMALL = 256
"""Longer side up to which pictures are stored without loss."""


def page(drawn: Sequence[Drawn]) -> str:
    """Render the page; it needs no other file and no network."""
    environment = Environment(loader=FileSystemLoader(PAGES), autoescape=True)
    data = to_json([_row(one) for one in drawn]).replace("<", "\\u003c")  # no text can end the script
    return environment.get_template("show.html").render(rows=drawn, data=Markup(data))


def _row(drawn: Drawn) -> dict[str, Any]:
    """Return what the page's script reads of a row."""
    layouts: list[Selections] = []
    lines = [[_choice(choice, layouts) for choice in line] for line in drawn.lines]
    return {
        "name": drawn.row.name,
        "asked": drawn.row.asked,
        "pictures": [_embedded(picture) for picture in drawn.pictures],
        "layouts": [_layout(one) for one in layouts],
        "lines": lines,
    }


def _choice(choice: Choice, layouts: list[Selections]) -> dict[str, Any]:
    """Return a choice; equal grids are stored once, in `layouts`."""
    selections = choice.answer.selections
    place = next((i for i, one in enumerate(layouts) if one.grids == selections.grids), len(layouts))
    if place == len(layouts):
        layouts.append(selections)
    stages = []
    for number, stage in enumerate(selections.stages):
        merged = choice.answer.merged(stage.layer)
        kept = selections.kept(number)
        bits = None if merged is None else base64.b64encode(np.packbits(merged & kept).tobytes()).decode()
        stages.append({"layer": stage.layer, "bits": stage.bits, "merged": bits})
    return {
        "model": choice.model,
        "method": choice.method,
        "ratio": choice.ratio,
        "maps": [[layer, name, _quantised(values)] for (layer, name), values in choice.answer.maps.items()],
        "only_maps": choice.only_maps,
        "stages": stages,
        "layout": place,
        "answer": choice.answer.prediction.prediction,
    }


def _layout(selections: Selections) -> dict[str, Any]:
    """Return the layers of every picture."""
    return {
        "tokens": selections.tokens,
        "layers": [
            {
                "picture": layer.picture,
                "again": bool(number),
                "bounds": layer.bounds,
                "slices": [[one.first, one.rows, one.columns, *one.area] for one in layer.slices],
            }
            for picture in layers(selections)
            for number, layer in enumerate(picture)
        ],
    }


def _quantised(values: npt.NDArray[np.float64]) -> str:
    """Return [N] square roots of values as bytes from 0 to 254, 255 for none, in base64."""
    low, high = np.nanmin(values), np.nanmax(values)
    scaled = np.nan_to_num(np.sqrt((values - low) / (high - low or 1)) * 254, nan=255.0).round().astype(np.uint8)
    return base64.b64encode(scaled.tobytes()).decode()


def _embedded(picture: Image.Image) -> str:
    """Return a picture as an address that holds it, reduced to `LONGEST`."""
    shown, buffer = picture.convert("RGB"), io.BytesIO()
    shown.thumbnail((LONGEST, LONGEST))
    form = "PNG" if max(shown.size) <= SMALL else "JPEG"
    shown.save(buffer, form, quality=88)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
