"""Grouping of a prompt's encoded grids into images, from its ids and placeholders.

A family returns one of these functions, or its own, as `ModelAdapter.image_grouping`. Reports keep it until their rows
are read, so it holds nothing of the model.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from torch import Tensor

from uniprune.errors import UnsupportedError


@dataclass(frozen=True)
class EncodedPrompt:
    """The visual placeholders of one prompt, and the grids that fill them.

    Attributes:
        row: its row in the batch.
        ids: [L] input ids with padding, on the CPU; None for a prompt given as embeddings.
        places: [P] positions of the placeholders.
        sizes: placeholders of every encoded grid, in prompt order. Of features that were computed outside the session
            the grids are unknown: then every contiguous run of placeholders counts as one.
        known: whether the grids are known.
    """

    row: int
    ids: Tensor | None
    places: Tensor
    sizes: list[int]
    known: bool

    @cached_property
    def starts(self) -> list[int]:
        """The number of the first placeholder of every grid."""
        return [0, *accumulate(self.sizes)][:-1]

    @cached_property
    def runs(self) -> list[int]:
        """The number of the first placeholder of every contiguous run."""
        return run_starts(self.places)


Grouping = Callable[[EncodedPrompt], list[int]]
"""A function that returns the number of consecutive grids that make up each image of a prompt, all of them together."""


def run_starts(places: Tensor) -> list[int]:
    """Return the index in `places` [P], sorted positions, at which every contiguous run begins."""
    return [0, *(1 + (places.diff() != 1).nonzero()[:, 0]).tolist()] if len(places) else []


def one_run(prompt: EncodedPrompt) -> list[int]:
    """Every grid is an image, all of which is one run of placeholders; images may touch.

    Raises:
        UnsupportedError: a run is not filled by whole images.
    """
    _check_runs(prompt)
    return [1] * len(prompt.sizes)


def tiles_in_a_run(prompt: EncodedPrompt) -> list[int]:
    """The grids of one run of placeholders are tiles of one image.

    Raises:
        UnsupportedError: a run is not filled by whole grids.
    """
    _check_runs(prompt)
    firsts = [bisect_left(prompt.starts, run) for run in prompt.runs] + [len(prompt.starts)]
    return [after - before for before, after in pairwise(firsts)]


def any_runs(prompt: EncodedPrompt) -> list[int]:
    """Every grid is an image, whatever stands between its placeholders.

    Raises:
        UnsupportedError: the grids are unknown.
    """
    if prompt.sizes and not prompt.known:
        raise UnsupportedError(
            "the image features were computed outside this session, so it is unknown which runs of placeholders make "
            "up an image; pass pixel values"
        )
    return [1] * len(prompt.sizes)


def _check_runs(prompt: EncodedPrompt) -> None:
    if not {*prompt.runs} <= {*prompt.starts}:
        raise UnsupportedError(
            f"row {prompt.row} of the batch has a run of visual placeholders that no whole number of images fills"
        )
