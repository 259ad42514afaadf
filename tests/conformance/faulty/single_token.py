"""Takes for granted that an image has several tokens."""

from dataclasses import dataclass
from typing import ClassVar

from uniprune.pruning.base import PreLLM
from uniprune.registry import register_method


@register_method("faulty-single-token")
@dataclass(frozen=True, kw_only=True)
class SingleToken(PreLLM):
    """The tokens that are larger than the second largest is, at most."""

    exact: ClassVar[bool] = False

    def select(self, view, keep):
        norms = view.tokens.float().norm(dim=-1)
        return (norms >= norms.sort(descending=True).values[max(1, keep - 1)]).nonzero()[:, 0]
