"""Claims to be indifferent to the scale of features, and is not."""

from dataclasses import dataclass
from typing import ClassVar

from uniprune.pruning.base import PreLLM
from uniprune.pruning.functional import top_k
from uniprune.registry import register_method


@register_method("faulty-claims-scale")
@dataclass(frozen=True, kw_only=True)
class ClaimsScale(PreLLM):
    """The tokens with the largest squashed features."""

    scale_invariant: ClassVar[bool] = True

    def select(self, view, keep):
        return top_k(view.tokens.float().tanh().norm(dim=-1), keep)
