"""PriorTR: keep the tokens that the question attends to more than a token that has not seen it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from uniprune.errors import UserError
from uniprune.pruning.base import IntraLLM
from uniprune.pruning.fields import NonNegative
from uniprune.pruning.functional import at_least_float32, top_k
from uniprune.pruning.view import View
from uniprune.registry import register_method

from ._priortr import RELEASES, SMALL, TOO_SHORT


@register_method(
    "priortr",
    paper="arXiv 2606.24156",
    code="CodeChildCZJ/PriorTR",
    deviations=[
        "Paper: null token, rows and their mean are the release's (`rows`, `query`).",
        "Release: InternVL's copy prunes before layer 2, LLaVA-NeXT's compares the last row.",
        "Release: a second forward of the prompt cut after the image (`2F`) is not run: in a causal decoder its last "
        "row is that of the null token.",
        "Release: every image of a prompt has its own null token; InternVL's copy prunes the first image only. Of text "
        "before the image the null token has seen the question, which is not noticed.",
        "Release: a prompt with no text after the null token is refused; there all scores are 0, the choice "
        "arbitrary. Counts by a threshold on scores are not offered.",
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
    """

    layer: NonNegative = 3
    rows: Literal["llava", "internvl", "qwen"] = "llava"
    query: Literal["question", "last"] = "question"
    heads: Literal["mean", "max"] = "mean"
    evict: bool = True
    llm_attention: ClassVar[bool] = True

    def evict_from(self, num_layers: int) -> int | None:
        return 0 if self.evict and self.ratio < 1 else None

    def select(self, view: View, keep: int) -> Tensor:
        attention = at_least_float32(view.attention(view.following))
        null, end = int(self.rows == "internvl"), attention.shape[1]
        end -= self.rows == "qwen" and self.query == "question"
        if end < null + 2:
            raise UserError(TOO_SHORT.format(attention.shape[1]))
        question = attention[:, :end] if self.query == "question" else attention[:, -1:]
        p, q = self._over_image(question), self._over_image(attention[:, null : null + 1])
        return top_k(p * ((p + SMALL) / (q + SMALL)).log(), keep)

    def _over_image(self, attention: Tensor) -> Tensor:
        """[N] attention [H, R, N] as shares of the image."""
        own = attention.mean(1)
        total = own.mean(0) if self.heads == "mean" else own.amax(0)
        return total / (total.sum() + SMALL)
