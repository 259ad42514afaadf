"""One number, 0–100, from the credits of a dataset's items.

The bridge computes it, not VLMEvalKit's rating: versions of the kit rate differently (some cannot rate MME unless all
of its categories are there), and its own "primary metric" is the alphabetically first one for MME (`code_reasoning`).
Where the kit's rating runs, its table is stored with the score, and tests compare the two.
"""

from __future__ import annotations

from math import fsum

from .items import Credits

MME_CATEGORIES = (
    *("OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene"),
    *("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"),
)
"""Categories in MME's perception (first ten) and reasoning sums."""

OCR_CATEGORIES = (
    *("Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition"),
    *("Handwriting Recognition", "Digit String Recognition", "Non-Semantic Text Recognition"),
    *("Scene Text-centric VQA", "Doc-oriented VQA", "Key Information Extraction"),
    "Handwritten Mathematical Expression Recognition",
)
"""Categories of OCRBench; the kit fails on any other."""


def headline(credits: Credits) -> float:
    """Return the mean over parts of one sum over items divided by another; of the credits where there are no parts.

    A part that nothing is added to (an F1 without any "yes") is left out; without any other the headline is 0.
    """
    parts = credits.parts or {"credit": {item: (credit, 1.0) for item, credit in credits.per_item.items()}}
    sums = [(fsum(above for above, _ in part.values()), fsum(n for _, n in part.values())) for part in parts.values()]
    ratios = [above / below for above, below in sums if below > 0]
    return 100 * fsum(ratios) / max(len(ratios), 1)
