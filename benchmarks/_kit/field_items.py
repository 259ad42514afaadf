"""Credit per item of the suite `field`, where it is not that of an earlier dataset's kind."""

from __future__ import annotations

from collections import defaultdict
from math import isclose
from typing import TYPE_CHECKING

from .faults import Row
from .items import Credits, Evaluation, choices

if TYPE_CHECKING:
    from .boot import Kit

FAILED = "All 5 retries failed."
"""End of MM-Vet's log of a grading in which the kit found no number."""


def cycles(evaluation: Evaluation) -> Credits:
    """HR-Bench: one credit per row; the headline is the mean accuracy over the orders of the options."""
    rows = choices(evaluation)
    parts: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for index, cycle in zip(evaluation.indices, evaluation.table["cycle_category"], strict=True):
        parts[str(cycle)][index] = (rows.per_item[index], 1.0)
    return rows._replace(parts=dict(parts))


def matched_pairs(evaluation: Evaluation) -> Credits:
    """MMVP: one credit per pair of rows with one question, in file order, only if both were answered correctly."""
    rows = choices(evaluation)
    asked: dict[str, list[str]] = defaultdict(list)
    for index, question in zip(evaluation.indices, evaluation.table["question"], strict=True):
        asked[str(question)].append(index)
    pairs = [pair for found in asked.values() for pair in zip(found[::2], found[1::2], strict=True)]
    return rows._replace(per_item={first: min(rows.per_item[first], rows.per_item[other]) for first, other in pairs})


def crowd(evaluation: Evaluation) -> Credits:
    """VizWiz keeps no result per row, so the kit's rule is applied again and checked against its total.

    Raises:
        RuntimeError: the total differs, which would mean that the kit applies another rule.
    """
    rows = zip(evaluation.table["answers"], evaluation.table["prediction"], strict=True)
    found = [crowd_credit(evaluation.kit, {"answers": answers}, text) for answers, text in rows]
    [total] = evaluation.result["Overall"]
    if not isclose(100 * sum(found) / len(found), total, abs_tol=1e-9):
        raise RuntimeError(
            f"VizWiz: the rows' mean is {100 * sum(found) / len(found):g}, VLMEvalKit's {total:g}; its matching rule "
            "has changed and benchmarks/_kit/field_items.py must follow"
        )
    unread = sum(not str(text).strip() for text in evaluation.table["prediction"])
    return Credits(dict(zip(evaluation.indices, found, strict=True)), unread)


def crowd_credit(kit: Kit, row: Row, answer: str) -> float:
    """VizWiz: agreement with the answers of ten people, by the kit's rule."""
    line = kit.vqa_eval.process_line({"answer": row["answers"], "prediction": answer})
    [hit] = kit.vqa_eval.hit_calculate([line], "VizWiz")
    return float(hit)


def graded(evaluation: Evaluation) -> Credits:
    """MM-Vet: the judge's grade of every row; one that cannot be read is 0, as in the kit, and counted."""
    judged = evaluation.file("_judge")
    credits = {index: float(score) for index, score in zip(evaluation.indices, judged["score"], strict=True)}
    return Credits(credits, sum(str(log).strip().endswith(FAILED) for log in judged["log"]))


def compared(evaluation: Evaluation) -> Credits:
    """LLaVA-Bench: a tenth of the judge's 1 to 10; the headline is the sum of these over that of GPT-4's answers.

    Gradings that cannot be read, or not from 1 to 10, carry no credit; the kit takes -1 for both answers.
    """
    judged = evaluation.file("_openai_result")
    pairs = zip(evaluation.indices, judged["score"], judged["gpt4_score"], strict=True)
    part = {
        index: (float(score), float(reference))
        for index, score, reference in pairs
        if 1 <= score <= 10 and 1 <= reference <= 10
    }
    credits = {index: score / 10 for index, (score, _) in part.items()}
    return Credits(credits, len(judged) - len(credits), {"relative score": part})
