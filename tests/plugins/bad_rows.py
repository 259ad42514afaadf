"""A benchmark with rows that no model can be asked, and one with more images than a tiny model has positions for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from uniprune.evaluation.dataset import DataOptions, Request, Score
from uniprune.modeling.messages import Part
from uniprune.registry import register_benchmark

ROWS = {
    "0": (1, "what is it ?"),
    "typed": (1, "what is <image> there ?"),
    "typed, no image": (0, "what is <image> there ?"),
    "film": (1, "what is <video> there ?"),
    "flat": (1, "what is flat ?"),
    "many": (7, "what are they ?"),
}
"""Row -> number of images and text."""


class BadRows:
    """Every row that is asked counts as right."""

    name, ability, fingerprint = "bad-rows", "perception", "bad-rows-1"
    faulty: Mapping[str, str] = MappingProxyType({})

    def __len__(self) -> int:
        return len(ROWS)

    def requests(self, limit: int | None = None) -> list[Request]:
        return [self._request(name, *one) for name, one in ROWS.items()][:limit]

    def score(
        self,
        predictions: Mapping[str, str],
        workdir: Path,
        limit: int | None = None,
        left_out: Mapping[str, str] = MappingProxyType({}),
    ) -> Score:
        return Score(100.0, "answered", len(predictions), per_item=dict.fromkeys(predictions, 1.0))

    def _request(self, name: str, images: int, text: str) -> Request:
        size = (0, 5) if name == "flat" else (96, 96)

        def load() -> list[Part]:
            return [*(Part(image=Image.new("RGB", size)) for _ in range(images)), Part(text=text)]

        return Request(name, load, text, max_new_tokens=2)


@register_benchmark("bad-rows", suite="bad-rows", ability="perception", metric="answered", judge=False)
def bad_rows(options: DataOptions) -> BadRows:
    """Six rows."""
    return BadRows()
