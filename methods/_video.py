"""Shared by methods for video: the frames of a view, and views without any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from uniprune.errors import UnsupportedError, UserError
from uniprune.pruning.base import PreLLM, Stage
from uniprune.pruning.functional import at_least_float32
from uniprune.pruning.view import View
from uniprune.pruning.view_batch import ViewBatch

Counts = Literal["exact", "release"]


@dataclass(frozen=True, kw_only=True)
class OfVideo(PreLLM):
    """A method that compares the frames of a video. An image is a video of one frame."""

    counts: Counts = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope in ("grid", "tile"):
            raise UserError(
                f"{type(self).__name__} compares the frames of a video, which scope={self.scope} decides one by one; "
                "use scope=image"
            )

    @property
    def exact(self) -> bool:
        """False with the counts of the release."""
        return self.counts == "exact"

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return one pruning point; none at ratio 1, where a release's own counts may be smaller."""
        return super().schedule(num_layers) if self.ratio < 1 else ()


def alike(batch: ViewBatch) -> bool:
    """Check whether the videos of a batch have as many frames, of the same size."""
    return len({tuple(view.grids) for view in batch.views}) == 1


def frames(view: View | ViewBatch) -> Tensor:
    """[..., T, F, D] tokens of the only video, or image, in the view, in float32 or wider.

    Raises:
        UnsupportedError: the view holds several grids, which need not be frames of one video.
    """
    first = view.views[0] if isinstance(view, ViewBatch) else view
    if len(first.grids) != 1:
        raise UnsupportedError(
            f"the method compares the frames of one video, but the view holds {len(first.grids)} grids: tiles of an "
            "image, images or videos of a prompt (use scope=image), or frames that the family encodes one by one"
        )
    tokens: Tensor = at_least_float32(view.tokens).unflatten(-2, (first.grids[0][0], -1))
    return tokens
