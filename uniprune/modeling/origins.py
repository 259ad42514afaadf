"""Origins of visual tokens: which tokens of the vision tower's call each of them is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Origins:
    """Tokens of the tower's call that N cells are made of: one each, or up to k, of which each cell is a weighted mean.

    A mean is one of projected tokens; where patches are averaged before the projector, the average is the token.

    Attributes:
        index: [N, k] numbers of the tokens, counted grid after grid in LLM order.
        share: [N, k] share of each token in the cell, 1 together; 0 where a cell has fewer. None if k is 1.
    """

    index: Tensor
    share: Tensor | None = None

    @classmethod
    def single(cls, numbers: Tensor) -> Origins:
        """Return the origins of cells that are one token each, `numbers` [N]."""
        return cls(numbers[:, None])

    @classmethod
    def joined(cls, parts: Sequence[Origins]) -> Origins:
        """Return the origins of the cells of all parts, one part after the other."""
        if all(part.share is None for part in parts):
            return cls(torch.cat([part.index for part in parts]))
        k = max(part.index.shape[1] for part in parts)
        index = [torch.cat((part.index, part.index[:, :1].expand(-1, k - part.index.shape[1])), 1) for part in parts]
        share = [F.pad(part.shares, (0, k - part.shares.shape[1])) for part in parts]
        return cls(torch.cat(index), torch.cat(share))

    def __len__(self) -> int:
        """Return N."""
        return len(self.index)

    def of(self, cells: Tensor) -> Origins:
        """Return the origins of some cells."""
        return Origins(self.index[cells], None if self.share is None else self.share[cells])

    def moved(self, tokens: int) -> Origins:
        """Return the same origins, so many tokens later in the call."""
        return Origins(self.index + tokens, self.share)

    @property
    def shares(self) -> Tensor:
        """[N, k] share of each token."""
        return torch.ones(self.index.shape) if self.share is None else self.share

    @cached_property
    def main(self) -> Tensor:
        """[N] the token with the largest share of each cell, the first one of equals."""
        return self.index.gather(1, self.shares.argmax(1, keepdim=True))[:, 0]

    @property
    def mixed(self) -> int:
        """Number of cells that are made of more than one token."""
        return 0 if self.share is None else int(((self.share > 0).sum(1) > 1).sum())
