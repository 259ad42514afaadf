"""Settings of a run apart from model and method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from uniprune.errors import UserError
from uniprune.evaluation.frame_sampling import USUAL, FrameSampling
from uniprune.evaluation.image_decoding import ImageDecoding
from uniprune.evaluation.prompts import Policy, Question


@dataclass(frozen=True)
class RunOptions:
    """Settings of a run apart from model and method.

    Attributes:
        protocol: "site" if the ratio holds at the pruning point, "average" if over all decoder layers.
        limit: rows per benchmark; None for all.
        batch_size: rows per batch; changes predictions by rounding only, see `Generator`.
        max_new_tokens: longest prediction of every row; None for the benchmark's own.
        workers: processes that decode images and process prompts ahead of the model (speed only).
        prompts: wording by "benchmark" or "family"; a family without words for a row leaves it to the benchmark.
        question: "seen" by methods, or "hidden" from them: images come first, and nothing behind them is known.
        image_decoding: images as VLMEvalKit converts them to RGB, or as a "viewer" shows them.
        sampling: choice of the frames of videos.
        share_prefix: prefill what rows of one image begin with once for all of them (no times are stored then).
        keep_selections: store the kept tokens of every row, and the areas of its pictures that they show.
    """

    protocol: Literal["site", "average"] = "site"
    limit: int | None = None
    batch_size: int = 8
    max_new_tokens: int | None = None
    workers: int = 0
    prompts: Policy = "benchmark"
    question: Question = "seen"
    image_decoding: ImageDecoding = "kit"
    sampling: FrameSampling = USUAL
    share_prefix: bool = False
    keep_selections: bool = False

    def __post_init__(self) -> None:
        for name in ("limit", "batch_size", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name.replace('_', '-')} {value} must be at least 1")
        if self.workers < 0:
            raise UserError(f"workers {self.workers} must be at least 0; 0 prepares rows in the main process")
