"""Further datasets of the tables that papers on visual token pruning print."""

from __future__ import annotations

from dataclasses import replace

from . import boxes, faults, field_items, field_rules, golds, items
from .golds import Gold
from .task import Grouping, Judging, Task
from .templates import MCQ, SHORT

FIELD_TASKS: dict[str, Task] = {
    "mmstar": Task(
        **MCQ,
        kit_name="MMStar",
        rows=1_500,
        rows_known=False,
        suite="field",
        ability="comprehensive",
        summary="MMStar: questions that need their image (arXiv 2403.20330)",
    ),
    "realworldqa": Task(
        **MCQ,
        kit_name="RealWorldQA",
        rows=765,
        rows_known=False,
        suite="field",
        ability="comprehensive",
        summary="RealWorldQA: spatial questions about photographs, many from vehicles (x.ai, 2024)",
    ),
    "seedbench-image": Task(
        **MCQ,
        kit_name="SEEDBench_IMG",
        rows=14_233,
        rows_known=False,
        suite="field",
        ability="comprehensive",
        summary="SEED-Bench: the questions about images (arXiv 2307.16125)",
    ),
    "blink": Task(
        **MCQ,
        kit_name="BLINK",
        rows=1_901,
        rows_known=False,
        suite="field",
        ability="comprehensive",
        summary="BLINK validation: perception, one to four images (arXiv 2404.12390)",
    ),
    "hrbench-4k": Task(
        **{**MCQ, "cls": "HRBenchDataset", "credits": field_items.cycles}
        | {"columns": (*MCQ["columns"], "category", "cycle_category")},
        kit_name="HRBench4K",
        rows=800,
        rows_known=False,
        suite="field",
        ability="comprehensive",
        summary="HR-Bench 4K: details of large images, four orders of options (arXiv 2408.15556)",
    ),
    "mmvp": Task(
        **{**MCQ, "metric": "pair accuracy", "credits": field_items.matched_pairs},
        kit_name="MMVP",
        rows=300,
        rows_known=False,
        suite="field",
        ability="hallucination",
        summary="MMVP: pairs of images that CLIP takes for alike (arXiv 2401.06209)",
        grouping=Grouping(lambda row: str(row["question"]), faults.matched_fault),
    ),
    "mmmu-pro": Task(
        **{**MCQ, "cls": "MMMUProDataset", "fault": faults.open_fault, "credits": items.open_choices}
        | {"gold": Gold(golds.text, golds.open_choice), "optional": ("A", "B")},
        kit_name="MMMU_Pro_10c",
        rows=1_730,
        rows_known=False,
        suite="field",
        ability="multidisciplinary",
        summary="MMMU-Pro, standard: up to ten options, one or several images (arXiv 2409.02813)",
        images_named=faults.images_named,
    ),
    "vizwiz": Task(
        **{**SHORT, "suite": "field", "cls": "VizWiz", "credits": field_items.crowd}
        | {"columns": ("index", "image", "question", "answers"), "fault": faults.crowd_fault},
        kit_name="VizWiz",
        rows=4_319,
        rows_known=False,
        ability="comprehensive",
        metric="VQA accuracy",
        summary="VizWiz validation: photographs and questions of blind people (arXiv 1802.08218)",
        literals=("answers",),
        gold=Gold(golds.crowd, field_items.crowd_credit),
    ),
    "docvqa": Task(
        **{**SHORT, "suite": "field"},
        kit_name="DocVQA_VAL",
        gold=Gold(golds.listed, golds.short("DocVQA", "anls")),
        rows=5_349,
        rows_known=False,
        ability="ocr",
        metric="ANLS",
        summary="DocVQA validation: questions about scanned documents (arXiv 2007.00398)",
    ),
    "infovqa": Task(
        **{**SHORT, "suite": "field"},
        kit_name="InfoVQA_VAL",
        gold=Gold(golds.listed, golds.short("InfoVQA", "anls")),
        rows=2_801,
        rows_known=False,
        ability="ocr",
        metric="ANLS",
        summary="InfographicVQA validation: questions about infographics (arXiv 2104.12756)",
    ),
    "refcoco": Task(
        kit_name="RefCOCO",
        rows=57_457,
        rows_known=False,
        module="refcoco",
        cls="RefCOCODataset",
        suite="field",
        ability="grounding",
        metric="boxes of IoU 0.5",
        summary="RefCOCO, RefCOCO+, RefCOCOg: a box around what a phrase describes (arXiv 1608.00272)",
        columns=("index", "image", "question", "answer"),
        optional=(*boxes.CORNERS, *boxes.SIZE),
        name=boxes.name,
        loaded=boxes.loaded,
        fault=boxes.box_fault,
        gold=Gold(boxes.right_boxes, boxes.hit),
        credits=boxes.hits,
        note=boxes.NOTE,
    ),
    "mm-vet": Task(
        kit_name="MMVet",
        rows=218,
        rows_known=False,
        module="image_vqa",
        cls="MMVet",
        suite="field",
        ability="comprehensive",
        metric="judged score",
        summary="MM-Vet: open questions that join several abilities (arXiv 2308.02490)",
        columns=("index", "image", "question", "answer", "category"),
        credits=field_items.graded,
        # The kit cuts replies after 3 tokens, which a judge of ours reports as an error.
        judging=Judging(lambda kit: kit.mmvet.build_mmvet_gpt4_prompt, field_rules.share, field_rules.long, 16),
        max_new_tokens=1024,
    ),
    "llava-bench": Task(
        kit_name="LLaVABench",
        rows=60,
        rows_known=False,
        module="image_vqa",
        cls="LLaVABench",
        suite="field",
        ability="comprehensive",
        metric="score relative to GPT-4's",
        summary="LLaVA-Bench in the wild: conversation, description, reasoning (arXiv 2304.08485)",
        columns=("index", "image", "question", "gpt4_ans", "caption", "category"),
        allowed={"category": frozenset(("conv", "detail", "complex"))},
        credits=field_items.compared,
        judging=Judging(
            lambda kit: kit.llavabench.build_prompt,
            field_rules.compared,
            field_rules.long_reference,
            2048,
            "You are a helpful and precise assistant for checking the quality of the answer.",
        ),
        max_new_tokens=1024,
    ),
}
"""Registered name -> task, the suite `field`."""

FIELD_TASKS |= {
    "hrbench-8k": replace(
        FIELD_TASKS["hrbench-4k"],
        kit_name="HRBench8K",
        summary="HR-Bench 8K: details of larger images, four orders of options (arXiv 2408.15556)",
    ),
    # The kit's class takes the question, which only the image has, for the word "placeholder".
    "mmmu-pro-vision": replace(
        FIELD_TASKS["mmmu-pro"],
        kit_name="MMMU_Pro_V",
        columns=("index", "image", "answer"),
        optional=("A", "B", "question"),
        fault=faults.choice_fault,
        images_named=lambda row: 0,
        question_shown=True,
        summary="MMMU-Pro, vision: question and options are in the image (arXiv 2409.02813)",
    ),
}
