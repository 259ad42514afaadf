"""Remarks on rows: what happened to one that a reader of its score should know, counted per benchmark.

A row with a remark was asked and scored. Its prediction line holds the remarks, the benchmark's record their counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from uniprune.results.predictions import Prediction

ORIENTATION = "orientation ignored"
DEPTH = "depth cut"
TRANSPARENCY = "transparency dropped"
FRAMES = "first frame only"

REMARKS: Mapping[str, str] = {
    ORIENTATION: "have an image whose EXIF orientation is not applied (--image-decoding viewer does)",
    DEPTH: "have an image of 16 or 32 bits whose values are cut at 255 (--image-decoding viewer scales them)",
    TRANSPARENCY: "have an image whose transparency is dropped (--image-decoding viewer puts it on white)",
    FRAMES: "have an image of several frames, of which the first is shown",
}
"""Remark as it is stored -> what is said of the rows that have it, after their number."""


def count_remarks(predictions: Iterable[Prediction]) -> dict[str, int]:
    """Return how many predictions have each remark, in the order of `REMARKS`; those that none has are left out."""
    found = Counter(remark for one in predictions for remark in one.remarks)
    return {remark: found[remark] for remark in REMARKS if found[remark]}
