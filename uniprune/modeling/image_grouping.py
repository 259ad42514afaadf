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

import numpy as np
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
    found = places.numpy()
    if len(found) and found[-1] - found[0] == len(found) - 1:  # one run, as most prompts have
        return [0]
    return [0, *(1 + np.flatnonzero(np.diff(found) != 1)).tolist()] if len(found) else []


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


@dataclass(frozen=True)
class ClipsOverRuns:
    """An image is one run of placeholders; a clip is one grid, between whose frames text stands.

    Attributes:
        video: id of the placeholders of clips.
    """

    video: int

    def __call__(self, prompt: EncodedPrompt) -> list[int]:
        """Every grid is an image or a clip.

        Raises:
            UnsupportedError: the grids of clips are unknown.
        """
        if prompt.known:
            return any_runs(prompt)
        if prompt.sizes and (prompt.ids is None or bool((prompt.ids[prompt.places] == self.video).any())):
            raise UnsupportedError(
                "the features were computed outside this session, so it is unknown which frames make up a clip; pass "
                "input_ids and pixel values"
            )
        return one_run(prompt)


@dataclass(frozen=True)
class ClipsOfGrids:
    """An image is one run of placeholders; a clip is those between two marks, each frame a grid and a run.

    Attributes:
        start, stop: ids of the marks.
    """

    start: int
    stop: int

    def __call__(self, prompt: EncodedPrompt) -> list[int]:
        """Every grid is an image or a frame of a clip.

        Raises:
            UnsupportedError: there are no ids, or a run is not filled by whole images.
        """
        _check_runs(prompt)
        if not prompt.sizes:
            return []
        if prompt.ids is None:
            raise UnsupportedError(
                "a prompt given as embeddings does not show which frames make up a clip; pass input_ids"
            )
        clips, ended = (((prompt.ids == mark).cumsum(0)[prompt.places]).tolist() for mark in (self.start, self.stop))
        counts, last = [0], None
        for place in prompt.starts:
            clip = clips[place] if clips[place] > ended[place] else None
            if place and (clip is None or clip != last):
                counts.append(0)
            counts[-1] += 1
            last = clip
        return counts


def _check_runs(prompt: EncodedPrompt) -> None:
    if not {*prompt.runs} <= {*prompt.starts}:
        raise UnsupportedError(
            f"row {prompt.row} of the batch has a run of visual placeholders that no whole number of images fills"
        )
