"""Claims to be indifferent to the scale of features, and is not."""

from dataclasses import dataclass
from typing import ClassVar

from uniprune.pruner import PreLLM
from uniprune.registry import register_method
from uniprune.selection import top_k


@register_method("faulty-claims-scale")
@dataclass(frozen=True, kw_only=True)
class ClaimsScale(PreLLM):
    """The tokens with the largest squashed features."""

    scale_invariant: ClassVar[bool] = True

    def select(self, view, keep):
        return top_k(view.tokens.float().tanh().norm(dim=-1), keep)
