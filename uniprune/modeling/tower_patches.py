"""The part of an adapter that describes a vision tower whose blocks can run on a part of the patches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from uniprune.pruning.view import Grid


class TowerPatches:
    """Part of `ModelAdapter` that only families write whose towers can drop patches; by default none can."""

    def vision_blocks(self) -> Sequence[nn.Module]:
        """Return the transformer blocks of the tower, in order."""
        raise NotImplementedError

    def whole_tower(self) -> str | None:
        """Return the reason why no patches can be dropped between blocks of the tower; None if they can."""
        return "its blocks were not tried with fewer patches"

    def patch_places(self, grids: Sequence[Grid]) -> Tensor:
        """Return [N, merge ** 2] places of the patches of each of the tokens of `grids`, on the CPU.

        Counted through the sequence of all images if the tower is `packed`, else in each image, after a CLS token.
        """
        raise NotImplementedError

    def token_pixels(self, pixels: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Return [N, P] per grid: all pixels of each token, from 0 to 1, of the `pixels` that entered the tower."""
        raise NotImplementedError

    def last_block(self) -> int:
        """Return the last block of the tower whose states the model uses."""
        return len(self.vision_blocks()) - 1
