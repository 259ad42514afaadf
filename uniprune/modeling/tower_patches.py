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

    def merging_parts(self, block: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module] | None:
        """Return the projection to keys, the norm before the MLP and the MLP of a block between which tokens can merge.

        None if merged tokens, which are in no grid, would not fit what comes after the blocks.
        """
        return None

    def last_block(self) -> int:
        """Return the last block of the tower whose states the model uses."""
        return len(self.vision_blocks()) - 1

    def part_blocks(self) -> Sequence[int]:
        """Return for each of `token_parts` the block on whose states it runs, by default the last one."""
        return [self.last_block()] * len(self.token_parts())

    def token_parts(self) -> Sequence[nn.Module]:
        """Return modules of the tower that run once per LLM token instead of once per patch, without the projector."""
        return ()
