"""Table of the datasets, one `Task` each."""

from __future__ import annotations

import ast
from dataclasses import replace

from . import faults, golds, headline, items, rules
from .field_tasks import FIELD_TASKS
from .golds import Gold
from .task import Grouping, Judging, Task
from .templates import MCQ, MMBENCH, SHORT, YES_NO, YES_OR_NO

TASKS: dict[str, Task] = {
    "mme": Task(
        **{**YES_NO, "columns": (*YES_NO["columns"], "image_path")},
        kit_name="MME",
        rows=2_374,
        rows_known=False,
        ability="comprehensive",
        metric="score / 28",
        summary="MME: perception and cognition, yes/no pairs (arXiv 2306.13394)",
        credits=items.pairs,
        allowed={**YES_OR_NO, "category": frozenset(headline.MME_CATEGORIES)},
        grouping=Grouping(lambda row: f"{row['category']}/{row['image_path']}", faults.pair_fault),
        labels=lambda row, place, head: {"index": place, "image_path": f"pair {head}"},
    ),
    # Rows of V1.1: those of V1.0 in the proportion of the questions (1 155 of 1 164).
    "mmbench-en": Task(
        **MMBENCH,
        kit_name="MMBench_DEV_EN_V11",
        rows=4_300,
        rows_known=False,
        summary="MMBench dev V1.1: English, circular (arXiv 2307.06281)",
    ),
    "mmbench-cn": Task(
        **MMBENCH,
        kit_name="MMBench_DEV_CN_V11",
        rows=4_300,
        rows_known=False,
        summary="MMBench dev V1.1: Chinese, circular (arXiv 2307.06281)",
    ),
    "mathvista": Task(
        kit_name="MathVista_MINI",
        rows=1_000,
        module="image_vqa",
        cls="MathVista",
        ability="mathematical",
        metric="accuracy",
        summary="MathVista testmini: mathematics in images (arXiv 2310.02255)",
        columns=("index", "image", "question", "answer", "question_type", "answer_type", "task", "skills"),
        literals=("skills",),
        optional=("answer_option", "choices"),
        allowed={"question_type": frozenset({"multi_choice", "free_form"})},
        fault=faults.vista_fault,
        gold=Gold(golds.letter_or_text, golds.mathvista, golds.UNREAD),
        credits=items.mathvista,
        judging=Judging(lambda kit: kit.mathvista.build_mathvista_gpt4_prompt, rules.last_value),
        max_new_tokens=1024,
    ),
    "mathvision": Task(
        kit_name="MathVision",
        rows=3_040,
        module="image_vqa",
        cls="MathVision",
        ability="mathematical",
        metric="accuracy",
        summary="Math-Vision: mathematics of competitions (arXiv 2402.14804)",
        columns=("index", "image", "question", "answer", "category", "choices"),
        literals=("choices",),
        fault=faults.vision_fault,
        gold=Gold(golds.text, golds.mathvision, golds.UNREAD),
        credits=items.mathvision,
        judging=Judging(lambda kit: kit.mathv.build_mathv_gpt4_prompt, rules.last_value),
        max_new_tokens=1024,
    ),
    "seedbench2-plus": Task(
        **MCQ,
        kit_name="SEEDBench2_Plus",
        rows=2_277,
        ability="ocr",
        summary="SEED-Bench-2-Plus: text-rich charts, maps and webs (arXiv 2404.16790)",
    ),
    "ocrbench": Task(
        kit_name="OCRBench",
        rows=1_000,
        module="image_vqa",
        cls="OCRBench",
        ability="ocr",
        metric="accuracy",
        summary="OCRBench: five kinds of text reading (arXiv 2305.07895)",
        columns=("index", "image", "question", "answer", "category"),
        literals=("answer",),
        allowed={"category": frozenset(headline.OCR_CATEGORIES)},
        fault=faults.answers_fault,
        gold=Gold(golds.listed, golds.reading),
        credits=items.reading,
    ),
    "mia-bench": Task(
        kit_name="MIA-Bench",
        rows=400,
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
        fault=faults.mia_fault,
        labels=lambda row, place, head: {"index": place, "num_of_component": len(ast.literal_eval(row["components"]))},
        credits=items.instructions,
        judging=Judging(lambda kit: kit.miabench.generate_prompt, rules.grade, rules.uncovered, 2048),
        max_new_tokens=1024,
    ),
    "scienceqa": Task(
        **MCQ,
        kit_name="ScienceQA_TEST",
        rows=2_017,
        ability="multidisciplinary",
        summary="ScienceQA test: questions with an image (arXiv 2209.09513)",
    ),
    "pope": Task(
        **YES_NO,
        kit_name="POPE",
        rows=5_127,
        rows_known=False,
        ability="hallucination",
        metric="F1",
        summary="POPE: object hallucination (arXiv 2305.10355)",
        credits=items.f1,
        allowed=YES_OR_NO,
    ),
    "hallusionbench": Task(
        **{**YES_NO, "columns": (*YES_NO["columns"], "l2-category")},
        kit_name="HallusionBench",
        rows=951,
        ability="hallucination",
        metric="mean of aAcc, fAcc, qAcc",
        summary="HallusionBench: language hallucination and visual illusion (arXiv 2310.14566)",
        fault=faults.figure_fault,
        labels=lambda row, place, head: {"index": faults.figure_label(row, place)},
        credits=items.three_accuracies,
        grouping=Grouping(faults.figure_set),
        allowed=YES_OR_NO,
    ),
}
"""Registered name -> task: first the ten of UniPruneBench in the order of its tables, MMBench in two languages."""

TASKS |= {
    "mmbench-en-v1.0": replace(
        TASKS["mmbench-en"],
        kit_name="MMBench_DEV_EN",
        rows=4_329,
        rows_known=True,
        suite="variants",
        summary="MMBench dev V1.0: English, circular (arXiv 2307.06281)",
    ),
    "mmbench-cn-v1.0": replace(
        TASKS["mmbench-cn"],
        kit_name="MMBench_DEV_CN",
        rows=4_329,
        rows_known=True,
        suite="variants",
        summary="MMBench dev V1.0: Chinese, circular (arXiv 2307.06281)",
    ),
    "mathvision-mini": replace(
        TASKS["mathvision"],
        kit_name="MathVision_MINI",
        rows=304,
        suite="variants",
        summary="Math-Vision testmini: a tenth of it (arXiv 2402.14804)",
    ),
    "mmmu": Task(
        **{**MCQ, "cls": "MMMUDataset", "fault": faults.open_fault, "credits": items.open_choices}
        | {"gold": Gold(golds.text, golds.open_choice), "optional": ("A", "B")}
        | {"columns": (*MCQ["columns"], "split")},
        kit_name="MMMU_DEV_VAL",
        rows=900,
        suite="zspaprune",
        ability="multidisciplinary",
        summary="MMMU validation: college subjects, one or several images (arXiv 2311.16502)",
        images_named=faults.images_named,
        split="validation",
    ),
    "gqa": Task(
        **SHORT,
        kit_name="GQA_TestDev_Balanced",
        gold=Gold(golds.listed, golds.short("GQA", "accuracy")),
        rows=12_578,
        rows_known=False,
        ability="comprehensive",
        metric="accuracy",
        summary="GQA test-dev balanced: composed questions about scenes (arXiv 1902.09506)",
    ),
    "ai2d": Task(
        **MCQ,
        kit_name="AI2D_TEST",
        rows=3_088,
        suite="zspaprune",
        ability="multidisciplinary",
        summary="AI2D test: science diagrams (arXiv 1603.07396)",
    ),
    "textvqa": Task(
        **SHORT,
        kit_name="TextVQA_VAL",
        gold=Gold(golds.listed, golds.short("TextVQA", "vqa_score")),
        rows=5_000,
        rows_known=False,
        ability="ocr",
        metric="VQA accuracy",
        summary="TextVQA validation: reading text in photographs (arXiv 1904.08920)",
        literals=("answer",),
    ),
    "chartqa": Task(
        **{**SHORT, "fault": faults.no_answer_fault},  # lists of numbers are compared as texts
        kit_name="ChartQA_TEST",
        gold=Gold(golds.listed, golds.short("ChartQA", "relaxed_accuracy")),
        rows=2_500,
        ability="ocr",
        metric="relaxed accuracy",
        summary="ChartQA test: human and generated questions (arXiv 2203.10244)",
    ),
}

TASKS |= FIELD_TASKS
