"""DART on input embeddings, as NVIDIA ships it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.base import PreLLM
from uniprune.pruning.fields import NonNegative
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._dart import largest_keys, span_quotas, with_pivots

NO_PIVOT = "DART on embeddings compares tokens with pivots, but there is none; set visual_pivots or text_pivots above 0"


@register_method(
    "dart-embeddings",
    paper="arXiv 2502.11494",
    code="NVIDIA/TensorRT-Edge-LLM",
    licence="Apache-2.0",
    deviations=[
        "Paper: keys and hidden states of layer 2; here, as in NVIDIA's runtime, input embeddings, so that what is "
        "dropped is never in the cache. Pivots of text come from the whole prompt.",
        "Release: the budget is met; NVIDIA (`counts=release`) rounds each span's up in float32, 11 of 100 at 0.1, and "
        "drops nothing below 16 visual tokens.",
        "Release: a span is a grid of the view, so with `scope=image` a video, whole; NVIDIA's are runs of visual "
        "tokens, in some families frames (`scope=grid`). Its 16 tokens are those of a prompt (`scope=prompt`).",
        "Release: embeddings are float32, not float16.",
    ],
)
@dataclass(frozen=True, kw_only=True)
class DARTEmbeddings(PreLLM):
    """DART (arXiv 2502.11494) before the language model, as in TensorRT-Edge-LLM 0.11: what is least like pivots.

    Pivots are the visual tokens of a span and the text tokens of the prompt with the largest L1 norm; for each in turn,
    visual ones first, the tokens of the span with the lowest cosine stay.

    Cost: one cosine row per pivot.

    Args:
        visual_pivots: how many visual pivots of a span.
        text_pivots: how many text pivots of the prompt.
        counts: "exact" meets the budget; "release" is NVIDIA's count.
        least: visual tokens of a view below which `counts=release` keeps all.
    """

    visual_pivots: NonNegative = 4
    text_pivots: NonNegative = 4
    counts: Literal["exact", "release"] = "exact"
    least: NonNegative = 16

    @property
    def exact(self) -> bool:
        return self.counts == "exact"

    @property
    def prompt_aware(self) -> bool:
        return self.text_pivots > 0

    def select(self, view: View, keep: int) -> Tensor:
        if not self.exact and len(view.tokens) < self.least:
            return torch.arange(len(view.tokens))
        text, first, kept = view.text[largest_keys(view.text, self.text_pivots)], 0, []
        if not self.visual_pivots and not len(text):
            raise UserError(NO_PIVOT)
        spans = view.tokens.split([math.prod(grid) for grid in view.grids])
        quotas = span_quotas(list(map(len, spans)), keep, None if self.exact else self.ratio)
        for span, quota in zip(spans, quotas, strict=True):
            if quota:
                visual = largest_keys(span, min(self.visual_pivots, quota))
                kept.append(first + with_pivots(span, visual, text, quota))
            first += len(span)
        return torch.cat(kept)
