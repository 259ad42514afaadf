"""Fields that several datasets of the table share."""

from __future__ import annotations

from typing import Any

from . import faults, golds, items
from .golds import Gold
from .task import Grouping

MCQ: dict[str, Any] = {
    "module": "image_mcq",
    "cls": "ImageMCQDataset",
    "metric": "accuracy",
    "columns": ("index", "image", "question", "answer"),
    "all_or_none": ("category", "l2-category", "split"),
    "fault": faults.choice_fault,
    "gold": Gold(golds.text, golds.choice),
    "credits": items.choices,
}
MMBENCH: dict[str, Any] = {
    **MCQ,
    "ability": "comprehensive",
    "metric": "circular accuracy",
    "fault": faults.rotated_fault,
    "grouping": Grouping(faults.question_index, faults.rotation_fault, faults.unrotated),
    "optional": ("g_index",),
    "labels": lambda row, place, head: {"index": place, "g_index": head},
    "credits": items.rotations,
}
YES_NO: dict[str, Any] = {
    "module": "image_yorn",
    "cls": "ImageYORNDataset",
    "columns": ("index", "image", "question", "answer", "category"),
}
SHORT: dict[str, Any] = {
    "module": "image_vqa",
    "cls": "ImageVQADataset",
    "suite": "zspaprune",
    "columns": ("index", "image", "question", "answer"),
    "all_or_none": ("category", "split"),
    "fault": faults.answers_fault,
    "credits": items.short_answers,
}
YES_OR_NO = {"answer": frozenset({"Yes", "No"})}
