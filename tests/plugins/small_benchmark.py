"""Two small benchmarks registered from outside: coloured pictures and one question each."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from uniprune.evaluation.dataset import DataOptions, Request, Score
from uniprune.modeling.messages import Part
from uniprune.registry import register_benchmark

COLORS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 210)}


class Small:
    """Twelve rows; with `broken`, row 3 is a damaged picture that only decoding reveals, row 12 cannot be asked."""

    ability = "perception"
    fingerprint = "small-1"

    def __init__(self, name: str, broken: bool) -> None:
        self.name, self.broken = name, broken
        self.faulty: Mapping[str, str] = {"12": "the image cell is empty"} if broken else {}

    def __len__(self) -> int:
        return 12 + len(self.faulty)

    def requests(self, limit: int | None = None) -> list[Request]:
        return [self._request(i) for i in range(12)][:limit]

    def score(self, predictions: Mapping[str, str], workdir: Path, limit: int | None = None) -> Score:
        credit = {str(i): float(bool(predictions.get(str(i)))) for i in range(12)[:limit]}
        value = 100 * sum(credit.values()) / len(credit)
        return Score(value, "answered", len(credit), per_item=credit)

    def _request(self, i: int) -> Request:
        file = io.BytesIO()
        color = list(COLORS)[i % 3]
        Image.new("RGB", (96, 96), COLORS[color]).save(file, "PNG")
        data = file.getvalue()[:60] if self.broken and i == 3 else file.getvalue()
        question = f"is there a {color} circle ?"
        return Request(str(i), (Part(image=Image.open(io.BytesIO(data))), Part(text=question)), question, 4)


@register_benchmark("small", suite="small", ability="perception", metric="answered", judge=False)
def small(options: DataOptions) -> Small:
    """Twelve plain rows."""
    return Small("small", broken=False)


@register_benchmark("small-broken", suite="small", ability="perception", metric="answered", judge=False)
def small_broken(options: DataOptions) -> Small:
    """A row with a damaged picture, and one that cannot be asked."""
    return Small("small-broken", broken=True)
