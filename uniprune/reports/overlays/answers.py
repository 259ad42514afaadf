"""Rows answered under several methods for a drawing: kept tokens, replaced ones, scores, and the answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.frame_sampling import FrameSampling, sampled
from uniprune.evaluation.image_decoding import ImageDecoding, converted
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.prompts import worded
from uniprune.evaluation.runner import Runner
from uniprune.evaluation.video_support import check_videos
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.loading import LoadedModel
from uniprune.modeling.messages import Part
from uniprune.pruning.base import Pruner
from uniprune.reports.overlays.watching import Notes, TowerMaps, Watched
from uniprune.results.kept_tokens import Selections
from uniprune.results.predictions import Prediction

UNPRUNED = "un-pruned"
"""Name of the un-pruned model in captions."""


@dataclass(frozen=True)
class ShownRow:
    """A row to draw.

    Attributes:
        request: the row.
        name: its name in titles and file names.
        benchmark: its benchmark, whose image settings hold for it; empty for a picture of one's own.
        asked: the question in titles.
    """

    request: Request
    name: str
    benchmark: str = ""
    asked: str = ""


@dataclass(frozen=True)
class ShownAnswer:
    """A row under one method.

    Attributes:
        prediction: the answer with its costs and kept tokens.
        maps: layer and name of a score that the method read -> [N] its values, NaN where it has none.
        notes: the method's records.
    """

    prediction: Prediction
    maps: Mapping[tuple[int, str], npt.NDArray[np.float64]]
    notes: Notes

    @property
    def selections(self) -> Selections:
        """The kept tokens."""
        found = self.prediction.selections
        assert found is not None, "answers for drawings keep selections"
        return found

    def merged(self, layer: int) -> npt.NDArray[np.bool_] | None:
        """Return [N] True at tokens that the method had replaced before a layer; None if it replaces none."""
        if not self.notes.replaces:
            return None
        return self.notes.merged_mask(self.prediction.index, layer, self.selections.tokens)


@dataclass(frozen=True)
class Choice:
    """A row under one method at one ratio.

    Attributes:
        model: name of the model.
        method: name of the method.
        ratio: the ratio; 1 for the un-pruned model.
        answer: what it gave.
        only_maps: whether nothing but its maps is drawn.
    """

    model: str
    method: str
    ratio: float
    answer: ShownAnswer
    only_maps: bool = False

    def label(self, several: bool = False) -> str:
        """Return method and ratio, and the model where there are `several`."""
        return f"{self.model} · " * several + self.method + (f" {self.ratio:g}" if self.ratio < 1 else "")


@dataclass
class Drawn:
    """A row with what is drawn of it.

    Attributes:
        row: the row.
        pictures: its images, then the frames of its videos, as the model's processor gets them.
        lines: what was chosen, a line per model and ratio.
    """

    row: ShownRow
    pictures: tuple[Image.Image, ...]
    lines: list[list[Choice]] = field(default_factory=list)


@dataclass(frozen=True)
class Reader:
    """Answers for drawings.

    Attributes:
        decoding: conversion of images to RGB.
        sampling: choice of the frames of videos.
    """

    decoding: ImageDecoding
    sampling: FrameSampling

    def pictures(self, row: ShownRow) -> tuple[Image.Image, ...]:
        """Return a row's images, then the frames of its videos, as the model's processor gets them.

        Raises:
            UserError: there are none, or one cannot be read.
        """
        try:
            parts, _ = converted(sampled(row.request.load(), self.sampling)[0], self.decoding)
        except UserError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever they stumble over
            raise UserError(f"{row.name}: an image cannot be read ({error}); choose another row") from error
        found = pictures_of(parts)
        if not found:
            raise UserError(f"{row.name} has no image or video, so there is no token to draw; choose another row")
        return found

    def lines(
        self,
        loaded: LoadedModel,
        row: ShownRow,
        variants: Mapping[str, Sequence[MethodSpec]],
        blocks: Sequence[int] = (),
    ) -> list[list[Choice]]:
        """Return what methods choose of a row: a line of maps of the tower's blocks, if any, and one per ratio.

        Every line of choices begins with the un-pruned model.

        Raises:
            UserError: the row cannot be given to the model.
        """
        name, found = loaded.entry.name, list[list[Choice]]()
        if blocks:
            answer = self.answer(loaded, TowerMaps(blocks=tuple(blocks)), row)
            found.append([Choice(name, "tower attention", 1.0, answer, only_maps=True)])
        whole = Choice(name, UNPRUNED, 1.0, self.answer(loaded, Pruner(), row))
        columns = [
            [Choice(name, label, spec.ratio, self.answer(loaded, spec.pruner(), row)) for spec in specs]
            for label, specs in variants.items()
        ]
        lines = [[whole, *line] for line in zip(*columns, strict=True)] if columns else [[whole]]
        return found + lines

    def answer(self, loaded: LoadedModel, pruner: Pruner, row: ShownRow) -> ShownAnswer:
        """Return a row's answer under a method.

        Raises:
            UserError: it cannot be given to the model.
        """
        request, adapter = dataclasses.replace(row.request, index=row.name), loaded.adapter
        if loaded.entry.prompts == "family":
            request = worded(request, adapter.prompt, adapter.system)
        check_videos(loaded, row.name, [request], False)
        notes = Notes()
        watched = Watched(inner=pruner, notes=notes)
        given = {"decoding": self.decoding, "sampling": self.sampling, "keep_selections": True, "timed": False}
        with Runner(loaded, watched, 1, **given) as runner:  # type: ignore[arg-type]  # mypy: values of several types
            [[prediction]] = runner.predictions([request], benchmark=row.benchmark)
        if prediction.error is not None or prediction.selections is None:
            raise UserError(f"{row.name} cannot be given to {loaded.entry.name}: {prediction.error}")
        return ShownAnswer(prediction, notes.heat(row.name, prediction.selections.tokens), notes)


def check_blocks(blocks: Sequence[int], adapter: ModelAdapter) -> None:
    """Check that the vision tower has blocks of these numbers.

    Raises:
        UserError: it has not.
    """
    depth = len(adapter.vision_blocks())
    for block in blocks:
        if not -depth <= block < depth:
            raise UserError(f"--blocks {block}: the vision tower has {depth} blocks; expected 0 to {depth - 1}")


def pictures_of(parts: Sequence[Part]) -> tuple[Image.Image, ...]:
    """Return the images of a message, then the frames of its clips."""
    images = [part.image for part in parts if part.image is not None]
    return (*images, *(frame for part in parts if part.clip is not None for frame in part.clip.images))
