"""What each dataset is to VLMEvalKit and to us: one row of a table per dataset."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from benchmarks._kit import headline, items, rules
from benchmarks._kit.items import Credits, Evaluation

if TYPE_CHECKING:
    from benchmarks._kit.boot import Kit

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Grouping:
    """Rows that are scored together.

    Attributes:
        key: what the rows of a group share. fault: what keeps a complete group from being scored, or None.
    """

    key: Callable[[Row], str]
    fault: Callable[[Sequence[Row]], str | None]


@dataclass(frozen=True)
class Judging:
    """How a dataset that VLMEvalKit does not score by matching alone is judged.

    Attributes:
        prompt: the kit's function from a row with its prediction to the judge's prompt.
        rule: the rule judge's reply to that prompt. refuses: parts of a row that it cannot judge.
        max_tokens: longest reply of a judge model, as in the kit.
    """

    prompt: Callable[[Kit], Callable[[Any], str]]
    rule: Callable[[Row], str]
    refuses: Callable[[Row], list[str]] = lambda row: []
    max_tokens: int = 128


@dataclass(frozen=True)
class Task:
    """One VLMEvalKit dataset.

    Attributes:
        kit_name: the kit's name of it; decides prompts, scoring and the official file's name and md5.
        module: module of `vlmeval.dataset` with the class `cls`.
        ability: ability group of UniPruneBench. metric: name of the headline number. summary: one line for listings.
        columns: must be there and filled in every row. all_or_none: if filled in one row, then in every row.
        literals: columns the kit evaluates as Python lists.
        allowed: column -> the only values the kit can score.
        fault: what else is wrong with a row, or None. grouping: rows scored together.
        headline: the kit's result -> 0–100. credits: per-item credit from the kit's result files.
        judging: how it is judged; None where exact matching is enough.
        max_new_tokens: longest answer, in tokens.
    """

    kit_name: str
    module: str
    cls: str
    ability: str
    metric: str
    summary: str
    columns: tuple[str, ...]
    headline: Callable[[Evaluation], float]
    credits: Callable[[Evaluation], Credits]
    all_or_none: tuple[str, ...] = ()
    literals: tuple[str, ...] = ()
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fault: Callable[[Row], str | None] = lambda row: None
    grouping: Grouping | None = None
    judging: Judging | None = None
    max_new_tokens: int = 128

    @property
    def judge(self) -> bool:
        """Whether it cannot be scored without a judge."""
        return self.judging is not None


def filled(cell: object) -> bool:
    """Whether a cell, read as text, holds something (cells missing at the end of a line are NaN)."""
    return isinstance(cell, str) and bool(cell.strip())


def _pair_fault(rows: Sequence[Row]) -> str | None:
    return None if len(rows) == 2 else f"{len(rows)} rows share this image and category; MME scores pairs"


def _question(row: Row) -> str:
    """Index of the question a rotation belongs to, by the kit's rule."""
    return str(int(row["g_index"])) if filled(row.get("g_index")) else str(int(row["index"]) % 1_000_000)


def _rotation_fault(rows: Sequence[Row]) -> str | None:
    if any(str(int(row["index"])) == _question(row) for row in rows):
        return None
    return f"row {_question(rows[0])}, the unrotated form of the question, is missing"


def _options_fault(row: Row) -> str | None:
    return None if any(filled(row.get(letter)) for letter in ascii_uppercase) else "no answer option"


def _rotated_fault(row: Row) -> str | None:
    named = {name: row[name] for name in ("index", "g_index") if filled(row.get(name))}
    wrong = [f"{name} {value!r}" for name, value in named.items() if not value.isdecimal()]
    return f"{wrong[0]} is not a whole number" if wrong else _options_fault(row)


def _vista_fault(row: Row) -> str | None:
    if row["question_type"] != "multi_choice":
        return None
    if not filled(row.get("answer_option")):
        return "field 'answer_option' is empty"
    return literal_fault("choices", row.get("choices"))


def _mia_fault(row: Row) -> str | None:
    texts, weights, types = (ast.literal_eval(row[f"component{end}"]) for end in ("s", "_weight", "_type"))
    counts = {len(texts), len(weights), len(types)}
    if not 1 <= len(texts) <= 5 or len(counts) > 1 or row["num_of_component"].removesuffix(".0") != str(len(texts)):
        return "components, weights, types and num_of_component disagree, or are not 1 to 5"
    if not all(isinstance(entry, str) for entry in (*texts, *types)):
        return "components and component types must be texts"
    return None if all(isinstance(w, int | float) and w > 0 for w in weights) else "component weights must be positive"


def _answer_fault(row: Row) -> str | None:
    return None if all(isinstance(a, str) for a in ast.literal_eval(row["answer"])) else "the answers are not all texts"


def literal_fault(name: str, text: object) -> str | None:
    """What is wrong with a list literal. The kit runs `eval` on it, so anything else must not get there."""
    try:
        good = isinstance(ast.literal_eval(str(text)), list)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        good = False
    return None if good else f"field {name!r} is not a list literal"


_MCQ: dict[str, Any] = {
    "module": "image_mcq",
    "cls": "ImageMCQDataset",
    "metric": "accuracy",
    "columns": ("index", "image", "question", "answer"),
    "all_or_none": ("category", "l2-category", "split"),
    "fault": _options_fault,
    "headline": headline.hits,
    "credits": items.choices,
}
_MMBENCH: dict[str, Any] = {
    **_MCQ,
    "ability": "comprehensive",
    "metric": "circular accuracy",
    "fault": _rotated_fault,
    "grouping": Grouping(_question, _rotation_fault),
    "credits": items.rotations,
}
_YES_NO: dict[str, Any] = {
    "module": "image_yorn",
    "cls": "ImageYORNDataset",
    "columns": ("index", "image", "question", "answer", "category"),
    "credits": items.yes_no,
}
_YES_OR_NO = {"answer": frozenset({"Yes", "No"})}

TASKS: dict[str, Task] = {
    "mme": Task(
        **{**_YES_NO, "columns": (*_YES_NO["columns"], "image_path"), "credits": items.pairs},
        kit_name="MME",
        ability="comprehensive",
        metric="score / 28",
        summary="MME: perception and cognition, yes/no pairs (arXiv 2306.13394)",
        headline=headline.mme,
        allowed={**_YES_OR_NO, "category": frozenset(headline.MME_CATEGORIES)},
        grouping=Grouping(lambda row: f"{row['category']}/{row['image_path']}", _pair_fault),
    ),
    "mmbench-en": Task(
        **_MMBENCH, kit_name="MMBench_DEV_EN_V11", summary="MMBench dev V1.1, English, circular (arXiv 2307.06281)"
    ),
    "mmbench-cn": Task(
        **_MMBENCH, kit_name="MMBench_DEV_CN_V11", summary="MMBench dev V1.1, Chinese, circular (arXiv 2307.06281)"
    ),
    "mathvista": Task(
        kit_name="MathVista_MINI",
        module="image_vqa",
        cls="MathVista",
        ability="mathematical",
        metric="accuracy",
        summary="MathVista testmini: mathematics in pictures (arXiv 2310.02255)",
        columns=("index", "image", "question", "answer", "question_type", "answer_type", "task", "skills"),
        literals=("skills",),
        fault=_vista_fault,
        headline=headline.overall,
        credits=items.mathvista,
        judging=Judging(lambda kit: kit.mathvista.build_mathvista_gpt4_prompt, rules.last_value),
        max_new_tokens=1024,
    ),
    "mathvision": Task(
        kit_name="MathVision",
        module="image_vqa",
        cls="MathVision",
        ability="mathematical",
        metric="accuracy",
        summary="Math-Vision, all 3 040 rows (arXiv 2402.14804)",
        columns=("index", "image", "question", "answer", "category", "choices"),
        literals=("choices",),
        headline=headline.overall,
        credits=items.mathvision,
        judging=Judging(lambda kit: kit.mathv.build_mathv_gpt4_prompt, rules.last_value),
        max_new_tokens=1024,
    ),
    "seedbench2-plus": Task(
        **_MCQ,
        kit_name="SEEDBench2_Plus",
        ability="ocr",
        summary="SEED-Bench-2-Plus: text-rich charts, maps and webs (arXiv 2404.16790)",
    ),
    "ocrbench": Task(
        kit_name="OCRBench",
        module="image_vqa",
        cls="OCRBench",
        ability="ocr",
        metric="accuracy",
        summary="OCRBench: five kinds of text reading (arXiv 2305.07895)",
        columns=("index", "image", "question", "answer", "category"),
        literals=("answer",),
        allowed={"category": frozenset(headline.OCR_CATEGORIES)},
        fault=_answer_fault,
        headline=headline.ocr,
        credits=items.reading,
    ),
    "mia-bench": Task(
        kit_name="MIA-Bench",
        module="miabench",
        cls="MIABench",
        ability="instruction",
        metric="judged score",
        summary="MIA-Bench: layered instructions (arXiv 2407.01509)",
        columns=(
            *("index", "image", "question"),
            *("num_of_component", "components", "component_weight", "component_type"),
        ),
        literals=("components", "component_weight", "component_type"),
        fault=_mia_fault,
        headline=headline.mia,
        credits=items.instructions,
        judging=Judging(lambda kit: kit.miabench.generate_prompt, rules.grade, rules.uncovered, 2048),
        max_new_tokens=1024,
    ),
    "scienceqa": Task(
        **_MCQ,
        kit_name="ScienceQA_TEST",
        ability="multidisciplinary",
        summary="ScienceQA test, questions with a picture (arXiv 2209.09513)",
    ),
    "pope": Task(
        **_YES_NO,
        kit_name="POPE",
        ability="hallucination",
        metric="F1",
        summary="POPE: object hallucination (arXiv 2305.10355)",
        headline=headline.pope,
        allowed=_YES_OR_NO,
    ),
    "hallusionbench": Task(
        **{**_YES_NO, "columns": (*_YES_NO["columns"], "l2-category")},
        kit_name="HallusionBench",
        ability="hallucination",
        metric="mean of aAcc, fAcc, qAcc",
        summary="HallusionBench: language hallucination and visual illusion (arXiv 2310.14566)",
        fault=lambda row: None if row["index"].count("_") >= 5 else "the index has no set, figure and question number",
        headline=headline.hallusion,
        allowed=_YES_OR_NO,
    ),
}
"""Registered name -> task, in the order of the paper's tables."""
