"""Credit per item, 0 to 1, from VLMEvalKit's own result files, for intervals and paired tests."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from .rules import NOTHING

if TYPE_CHECKING:
    from .boot import Kit

UNREAD = frozenset({NOTHING, "", "Z", "nan", "False"})
"""Results of the kit's matching rules for an answer that they could not read."""
TABLES = "pkl"
"""Format of the kit's tables: pickles, because a TSV would turn "0012" into 12, and "None" into a missing value."""


@dataclass(frozen=True)
class Evaluation:
    """One `evaluate` of the kit: its matching has finished, its rating may have failed.

    Attributes:
        kit: VLMEvalKit.
        name: the kit's name of the dataset.
        table: its rows and predictions, in file order.
        rating: its return value, the kit's own rating, or the exception that it ended with.
        folder: folder of its files, all called `predictions…`.
    """

    kit: Kit
    name: str
    table: Any
    rating: Any
    folder: Path

    @property
    def result(self) -> Any:
        """The kit's own rating.

        Raises:
            Exception: as the kit raised it.
        """
        if isinstance(self.rating, Exception):
            raise self.rating
        return self.rating

    def file(self, ending: str) -> Any:
        """Load one of the kit's result tables, for example `file("_auxmatch")`.

        Raises:
            Exception: as the kit raised it before it had matched the answers.
        """
        path = self.folder / f"predictions{ending}.{TABLES}"
        found = self.kit.load(str(path)) if path.is_file() else None
        # A file of this name may also hold the replies to the rows matched so far.
        if isinstance(self.rating, Exception) and not hasattr(found, "columns"):
            raise self.rating
        return found

    def details(self) -> dict[str, Any]:
        """Return the kit's own rating (a dict or a DataFrame) as JSON values, NaN as null, or why there is none."""
        if isinstance(self.rating, Exception):
            reason = f"{type(self.rating).__name__}: {self.rating}"
            return {"table": [], "no_table": f"VLMEvalKit's own rating failed: {reason}"}
        rows = [self.rating] if isinstance(self.rating, dict) else self.rating.to_dict("records")
        return {"table": [{str(key): _scalar(value) for key, value in row.items()} for row in rows]}

    @property
    def indices(self) -> list[str]:
        """Row indices in table order."""
        return [str(index) for index in self.table["index"]]


def _scalar(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value != value else value


Parts = Mapping[str, Mapping[str, tuple[float, float]]]


class Credits(NamedTuple):
    """Credit per item (keyed by row index, of a group's first row where rows are scored together), and unread rows.

    `parts` derives the headline from items where it is not their mean credit; see
    `uniprune.evaluation.dataset.Score`.
    """

    per_item: dict[str, float]
    unparsed: int
    parts: Parts = MappingProxyType({})

    def renamed(self, names: Mapping[str, str]) -> Credits:
        """Return the same with other names of the rows."""
        parts = {name: {names[row]: pair for row, pair in part.items()} for name, part in self.parts.items()}
        return Credits({names[row]: credit for row, credit in self.per_item.items()}, self.unparsed, parts)


def yes_no(evaluation: Evaluation) -> Credits:
    """One credit per row; unread where neither "yes" nor "no" stands alone."""
    matched = evaluation.file("_auxmatch")
    credits = {i: float(score) for i, score in zip(evaluation.indices, matched["score"], strict=True)}
    return Credits(credits, int((matched["extracted"] == "Unknown").sum()))


def f1(evaluation: Evaluation) -> Credits:
    """POPE: one credit per row; the headline is 2 TP over 2 TP + FP + FN, each row as often as it has categories."""
    rows, matched = yes_no(evaluation), evaluation.file("_auxmatch")
    columns = (matched[name] for name in ("answer", "extracted", "category"))
    part = {}
    for index, answer, found, categories in zip(evaluation.indices, *columns, strict=True):
        times, true, predicted = len(categories.split(",")), answer == "Yes", found == "Yes"
        part[index] = (2.0 * times * (true and predicted), float(times * (true + predicted)))
    return rows._replace(parts={"F1": part})


def three_accuracies(evaluation: Evaluation) -> Credits:
    """HallusionBench: one credit per row; the headline is the mean of accuracy per answer, per figure, per question.

    A figure, or a question about several, is correct if all its rows are; it counts at its first row.
    """
    rows = yes_no(evaluation)
    parts = {"aAcc": {index: (credit, 1.0) for index, credit in rows.per_item.items()}}
    for name, field in (("fAcc", 4), ("qAcc", 5)):
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for index, category in zip(evaluation.indices, evaluation.table["l2-category"], strict=True):
            words = index.split("_")
            groups[str(category), words[3], words[field]].append(index)
        parts[name] = {group[0]: (min(rows.per_item[i] for i in group), 1.0) for group in groups.values()}
    return rows._replace(parts=parts)


def pairs(evaluation: Evaluation) -> Credits:
    """MME: one credit per image, half for the mean of its two questions, half for both being correct.

    The headline is the mean over categories of their mean credit.
    """
    rows = yes_no(evaluation)
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    table = evaluation.table
    for index, category, image in zip(evaluation.indices, table["category"], table["image_path"], strict=True):
        groups[category, str(image)].append(index)
    credits = {
        a: (rows.per_item[a] + rows.per_item[b]) / 4 + rows.per_item[a] * rows.per_item[b] / 2
        for a, b in groups.values()
    }
    parts: dict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    for (category, _), (first, _) in groups.items():
        parts[category][first] = (credits[first], 1.0)
    return Credits(credits, rows.unparsed, dict(parts))


def choices(evaluation: Evaluation) -> Credits:
    """Multiple choice: one credit per row, in file order."""
    return Credits(_hits(evaluation), _unread_choices(evaluation))


def open_choices(evaluation: Evaluation) -> Credits:
    """MMMU: one credit per row; a question without options has, for the kit, its answer as A and all others as B."""
    return Credits(_hits(evaluation), _unread_choices(evaluation, evaluation.kit.multiple_choice.MMMU_preproc))


def rotations(evaluation: Evaluation) -> Credits:
    """MMBench: one credit per question, only if every rotation of its options was answered correctly."""
    return Credits(_hits(evaluation), _unread_choices(evaluation))


def _hits(evaluation: Evaluation) -> dict[str, float]:
    """Read the marks of every question from the table: the kit's pickle lacks MMBench questions it could not read."""
    marked = evaluation.file("_exact_matching_result")
    return {str(index): float(hit) for index, hit in zip(marked["index"], marked["hit"], strict=True)}


def _unread_choices(evaluation: Evaluation, prepare: Callable[[Any], Any] = lambda table: table) -> int:
    found = prepare(evaluation.table.copy()).apply(evaluation.kit.multiple_choice.prefetch_answer, axis=1)
    return sum(str(option) in UNREAD for option in found)


def mathvista(evaluation: Evaluation) -> Credits:
    """The kit's own check of every judged answer."""
    return _judged(evaluation, evaluation.kit.mathvista.post_check)


def mathvision(evaluation: Evaluation) -> Credits:
    """The kit's own check of every judged answer."""
    return _judged(evaluation, evaluation.kit.mathv.post_check)


def _judged(evaluation: Evaluation, correct: Callable[[Any], bool]) -> Credits:
    judged = evaluation.file("_judge")
    credits = {index: float(bool(correct(judged.iloc[i]))) for i, index in enumerate(evaluation.indices)}
    return Credits(credits, sum(str(answer) in UNREAD for answer in judged["res"]))


def reading(evaluation: Evaluation) -> Credits:
    """OCRBench keeps no result per row, so its containment rule is applied again and checked against its total.

    Raises:
        RuntimeError: the total differs, which would mean that the kit's rule is no longer this one.
    """
    columns = (evaluation.table[name] for name in ("prediction", "answer", "category"))
    rows = zip(evaluation.indices, *columns, strict=True)
    credits = {index: float(contains(*row)) for index, *row in rows}
    if sum(credits.values()) != evaluation.result["Final Score"]:
        raise RuntimeError(
            f"OCRBench: {sum(credits.values()):g} rows match, VLMEvalKit counts {evaluation.result['Final Score']}; "
            "its matching rule has changed and benchmarks/_kit/items.py must follow"
        )
    return Credits(credits, sum(not str(text).strip() for text in evaluation.table["prediction"]))


def contains(prediction: str, answer: str, category: str) -> bool:
    """OCRBench's rule: one of the answers occurs in the prediction; blanks do not count in formulas."""

    def plain(text: str) -> str:
        if category == "Handwritten Mathematical Expression Recognition":
            return text.strip().replace("\n", " ").replace(" ", "")
        return text.lower().strip().replace("\n", " ")

    return any(plain(text) in plain(prediction) for text in ast.literal_eval(answer))


def short_answers(evaluation: Evaluation) -> Credits:
    """GQA, TextVQA, ChartQA: the kit's credit for every row; unread where the answer is empty."""
    matches = [{"match": ast.literal_eval(str(match))} for match in evaluation.file("_results")["eval_match"]]
    hits = evaluation.kit.vqa_eval.hit_calculate(matches, evaluation.name)
    credits = {index: float(hit) for index, hit in zip(evaluation.indices, hits, strict=True)}
    return Credits(credits, sum(not str(text).strip() for text in evaluation.table["prediction"]))


def instructions(evaluation: Evaluation) -> Credits:
    """MIA-Bench: the total of every grading sentence. Unread gradings carry no credit; the kit leaves them out too.

    A total below 0 or above 1 (of 12/10) is unread here; the kit counts it as it is.
    """
    credits = {}
    judged = evaluation.file("_judge")
    for index, types, reply in zip(evaluation.indices, judged["component_type"], judged["score_raw"], strict=True):
        try:
            scores = evaluation.kit.miabench.process_rawscore(types[2:-2].split("', '"), str(reply))
        except (ValueError, IndexError, ZeroDivisionError, UnboundLocalError):  # the kit swallows these, too
            continue
        if 0 <= scores["total_score"] <= 1:
            credits[index] = float(scores["total_score"])
    return Credits(credits, len(judged) - len(credits))
