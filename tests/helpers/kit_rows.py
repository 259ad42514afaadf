"""Builders of small tables in the formats of the official files."""

from __future__ import annotations

import base64
import csv
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

Row = dict[str, object]


def png(shade: int) -> str:
    """Encode a real PNG in base64."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 12), (shade, 40, 200)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def write(path: Path, rows: list[Row]) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


@dataclass(frozen=True)
class Example:
    """Rows with half-right predictions, their headline, and the number of predictions that no rule can read."""

    rows: list[Row]
    answers: dict[str, str]
    value: float
    unparsed: int
    per_item: dict[str, float]


def rows(*rows: Row) -> list[Row]:
    return [{"index": i, "image": png(i)} | row for i, row in enumerate(rows)]


def options(answer: str, *options: str, **extra: object) -> Row:
    return {"question": "Which?", **dict(zip("ABCDE", options, strict=False)), "answer": answer, **extra}
