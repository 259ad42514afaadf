"""PriorTR: keep the tokens that the question attends to more than a token that has not seen it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from uniprune.pruning.base import IntraLLM
from uniprune.pruning.fields import NonNegative
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch
from uniprune.registry import register_method

from ._priortr import RELEASES, Heads, Query, Rows, best, surplus


@register_method(
    "priortr",
    paper="arXiv 2606.24156",
    code="CodeChildCZJ/PriorTR",
    licence="Apache-2.0",
    deviations=[
        "Paper: null token, rows and their mean are the release's (`rows`, `query`).",
        "Release: InternVL's copy prunes before layer 2, LLaVA-NeXT's compares the last row.",
        "Release: no second forward of the prompt cut after the image (`2F`): its last row is that of the null token.",
        "Release: every image of a prompt has its own null token; InternVL's copy prunes the first image only. Of text "
        "before the image the null token has seen the question, which is not noticed.",
        "Release: a prompt with no text after the null token is refused; there all scores are 0.",
    ],
    releases=RELEASES,
)
@dataclass(frozen=True, kw_only=True)
class PriorTR(IntraLLM):
    """Keeps tokens by what the question adds to a null token's attention (Chen et al., ECCV 2026, arXiv 2606.24156).

    With p and q the attention of question and null token in layer K - 1, each normalised over the image, the score is
    p ln(p / q). Pruned before layer K = 3; after the prefill all layers forget what was dropped.

    Cost: the attention rows of the text after the image.

    Args:
        rows: the released copy: the null token is the first after the image ("llava", "qwen") or the second
            ("internvl"), the question all text after the image, in "qwen" without the last token.
        query: mean over the rows of the "question", or the "last" row of the prompt.
        heads: mean or maximum over heads, after that over rows.
        evict: whether the layers before K forget the keys and values of dropped tokens, as released.
        score_threshold: keep tokens with a higher score, at least one, instead of a ratio; `exact` is then False.
    """

    layer: NonNegative = 3
    rows: Rows = "llava"
    query: Query = "question"
    heads: Heads = "mean"
    evict: bool = True
    score_threshold: float | None = None
    llm_attention: ClassVar[bool] = True

    @property
    def exact(self) -> bool:
        """False with a threshold."""
        return self.score_threshold is None

    def evict_from(self, num_layers: int) -> int | None:
        return 0 if self.evict and (self.ratio < 1 or not self.exact) else None

    def select(self, view: View, keep: int) -> Tensor:
        return self._select([view.attention(view.following)], keep)[0]

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor:
        following = batch.following
        attention = batch.attention(pad_sequence(following, batch_first=True).unbind())
        return self._select([own[:, : len(rows)] for own, rows in zip(attention, following, strict=True)], keep)

    def _select(self, each: Sequence[Tensor], keep: int) -> Tensor:
        """[P, keep] for the attention [H, F, N] of P prompts."""
        return best(surplus(each, self.rows, self.query, self.heads), keep, self.score_threshold)
