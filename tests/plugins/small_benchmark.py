"""Two small benchmarks registered by a plugin: coloured images and one question each."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from uniprune.evaluation.dataset import DataOptions, Request, Score
from uniprune.modeling.messages import Part
from uniprune.registry import register_benchmark

COLORS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 210)}


class Small:
    """Twelve rows; with `broken`, the image of row 3 cannot be decoded, and row 12 is faulty from the start."""

    ability = "perception"
    fingerprint = "small-1"

    def __init__(self, name: str, broken: bool) -> None:
        self.name, self.broken = name, broken
        self.faulty: Mapping[str, str] = {"12": "the image cell is empty"} if broken else {}

    def __len__(self) -> int:
        return 12 + len(self.faulty)

    def requests(self, limit: int | None = None) -> list[Request]:
        return [self._request(i) for i in range(12)][:limit]

    def score(
        self,
        predictions: Mapping[str, str],
        workdir: Path,
        limit: int | None = None,
        left_out: Mapping[str, str] = MappingProxyType({}),
    ) -> Score:
        asked = [str(i) for i in range(12)[:limit] if str(i) not in left_out]
        credit = {index: float(bool(predictions[index])) for index in asked}
        value = 100 * sum(credit.values()) / len(credit)
        return Score(value, "answered", len(credit), per_item=credit)

    def _request(self, i: int) -> Request:
        color = list(COLORS)[i % 3]
        question = f"is there a {color} circle ?"

        def load() -> list[Part]:
            file = io.BytesIO()
            Image.new("RGB", (96, 96), COLORS[color]).save(file, "PNG")
            data = file.getvalue()[:60] if self.broken and i == 3 else file.getvalue()
            return [Part(image=Image.open(io.BytesIO(data))), Part(text=question)]

        return Request(str(i), load, question, max_new_tokens=4)


@register_benchmark("small", suite="small", ability="perception", metric="answered", judge=False)
def small(options: DataOptions) -> Small:
    """Twelve plain rows."""
    return Small("small", broken=False)


@register_benchmark("small-broken", suite="small", ability="perception", metric="answered", judge=False)
def small_broken(options: DataOptions) -> Small:
    """A row with a damaged image, and one without an image."""
    return Small("small-broken", broken=True)
