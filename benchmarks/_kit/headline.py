"""One number, 0–100, from what VLMEvalKit returns for a dataset.

The kit's own "primary metric" is the alphabetically first one for MME (`code_reasoning`), hence this table.
"""

from __future__ import annotations

from .items import Evaluation

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


def mme(evaluation: Evaluation) -> float:
    """Perception + reasoning over its maximum, 200 per category present: the usual total / 28 for the full set."""
    row = evaluation.result.iloc[0]
    present = sum(category in row for category in MME_CATEGORIES)
    return 100 * float(row["perception"] + row["reasoning"]) / (200 * present)


def hits(evaluation: Evaluation) -> float:
    """Share of questions the kit counts as correct; its `Overall` if there is one split."""
    return 100 * float(evaluation.file("_exact_matching_result")["hit"].mean())


def pope(evaluation: Evaluation) -> float:
    """F1 of "yes", over rows repeated for each of their categories."""
    return float(_row(evaluation, "split")["Overall"])


def hallusion(evaluation: Evaluation) -> float:
    """Mean of accuracy per answer, per figure and per question, as on the leaderboard."""
    row = _row(evaluation, "split")
    return float(row["aAcc"] + row["fAcc"] + row["qAcc"]) / 3


def overall(evaluation: Evaluation) -> float:
    """`acc` of the row `Overall`; the first column is named differently in MathVista and MathVision."""
    return float(_row(evaluation, evaluation.result.columns[0])["acc"])


def ocr(evaluation: Evaluation) -> float:
    """Share of correct answers; the kit's own norm divides by ten whatever the number of rows."""
    return 100 * float(evaluation.result["Final Score"]) / len(evaluation.table)


def short_answers(evaluation: Evaluation) -> float:
    """`Overall`, which is 0–100 already."""
    return float(evaluation.result.iloc[0]["Overall"])


def mia(evaluation: Evaluation) -> float:
    """Mean total score of the rows whose grading could be read, as in the kit."""
    return 100 * float(evaluation.result["total_score"])


def _row(evaluation: Evaluation, column: str):  # type: ignore[no-untyped-def]  # a pandas Series
    table = evaluation.result
    return table[table[column] == "Overall"].iloc[0]
