"""RefCOCO, RefCOCO+ and RefCOCOg: boxes around what a phrase describes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .faults import Row, filled, literal
from .items import Credits, Evaluation
from .replacing import replaced

if TYPE_CHECKING:
    from .boot import Kit

SPLITS = (
    *("RefCOCO_val", "RefCOCO_testA", "RefCOCO_testB", "RefCOCO+_val", "RefCOCO+_testA", "RefCOCO+_testB"),
    *("RefCOCOg_val", "RefCOCOg_test"),
)
"""Splits that the kit averages."""
CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
SIZE = ("width", "height")
NOTE = (
    "boxes are read as shares or thousandths of the image; scores of families that answer otherwise (Qwen2.5-VL: "
    "pixels; LLaVA-1.5: shares of a padded square) say nothing about their boxes"
)
"""Shown with every score."""
_ENDS = {end.lower(): end for end in ("val", "test", "testA", "testB")}


def split(row: Row) -> str:
    """Return the split of a row, by the kit's rule: a column of its own, or "RefCOCO+ testA" in `category`.

    Empty for one that the kit would leave out of its average.
    """
    found, category = str(row.get("split", "")), str(row.get("category", "")).split(None, 1)
    if not filled(found) and category:
        end = "".join(category[1:])
        found = "_".join([category[0], *([_ENDS.get(re.sub(r"[\s_-]+", "", end.lower()), end)] if end else [])])
    return found if found in SPLITS else ""


def name(row: Row) -> str:
    """Return a row's name in the kit: of the eight splits in one file, several may have the same index."""
    found = split(row)
    return f"{found}_{row['index']}" if found else str(row["index"])


def box_fault(row: Row) -> str | None:
    """A row names one of eight splits, and has a box in pixels or an answer of four numbers from 0 to 1."""
    if not split(row):
        return f"its split (column 'split', else 'category') is none of {', '.join(SPLITS)}"
    if all(filled(row.get(corner)) for corner in CORNERS):
        return None
    numbers = literal(row["answer"])
    if isinstance(numbers, list) and len(numbers) == 4 and all(isinstance(n, float | int) for n in numbers):
        return None if all(0 <= n <= 1 for n in numbers) else "the right answer has numbers that are not from 0 to 1"
    return f"the right answer {row['answer']!r} is no list of four numbers"


def right_boxes(row: Row) -> list[str]:
    """Return the right box as shares of width and height."""
    if not all(filled(row.get(corner)) for corner in CORNERS):
        return [row["answer"]]
    sizes = _size(row) * 2
    return [str([float(row[corner]) / size for corner, size in zip(CORNERS, sizes, strict=True)])]


def hit(kit: Kit, row: Row, answer: str) -> float:
    """Check a box by the kit's rules: an intersection over union of at least a half."""
    cls = kit.refcoco.RefCOCODataset
    width, height = _size(row)
    cells = {key: row[key] for key in ("answer", *CORNERS) if filled(row.get(key))}
    right = cls._extract_gt_bbox(cells | {"width": width, "height": height})
    found = cls._parse_prediction(answer)
    found = None if found is None else cls._to_absolute(found, width, height)
    return float(found is not None and right is not None and cls._compute_iou(found, right) >= cls.IOU_THRESHOLD)


def _size(row: Row) -> tuple[float, float]:
    """Return width and height, 1 where a table has none, as in the kit."""
    width, height = (float(row[side]) if filled(row.get(side)) else 1.0 for side in SIZE)
    return width, height


def loaded(kit: Kit, rows: Any, read: Callable[[str], Any]) -> Any:
    """Return rows with the columns that the kit makes while it reads its file, which is an empty one here."""
    Path(kit.refcoco.LMUDataRoot(), "RefCOCO.tsv").touch()
    with replaced(kit.refcoco, load=lambda path: rows.dropna(axis=1, how="all")):
        return read("RefCOCO")


def hits(evaluation: Evaluation) -> Credits:
    """One credit per row; the headline is the mean over splits of the share of boxes that are right.

    Unread is a reply in which the kit finds no four numbers.
    """
    found = evaluation.file("_detail")
    credits = {index: float(hit) for index, hit in zip(evaluation.indices, found["hit"], strict=True)}
    parts: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for index, part in zip(evaluation.indices, found["split"], strict=True):
        parts[str(part)][index] = (credits[index], 1.0)
    return Credits(credits, int((found["pred_bbox"] == "").sum()), dict(parts))
