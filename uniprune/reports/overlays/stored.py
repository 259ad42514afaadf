"""Kept tokens that runs stored with their answers, for a drawing without the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Dataset
from uniprune.evaluation.frame_sampling import FrameSampling
from uniprune.reports.overlays.answers import UNPRUNED, Choice, Drawn, Reader, ShownAnswer, ShownRow
from uniprune.reports.overlays.watching import Notes
from uniprune.results.predictions import Prediction, prediction_lines
from uniprune.results.records import RunRecord
from uniprune.results.store import Store


@dataclass(frozen=True)
class StoredRow:
    """A run's answer to a row.

    Attributes:
        record: the run.
        prediction: the answer, with its kept tokens.
    """

    record: RunRecord
    prediction: Prediction

    @property
    def budget(self) -> tuple[str, float]:
        """Model and ratio, which the choices of a line of panels share."""
        return self.record.model.name, self.record.setup.ratio

    @property
    def unpruned(self) -> bool:
        """Return whether nothing is pruned."""
        return self.record.setup.method.kind == "none"

    @property
    def choice(self) -> Choice:
        """The answer as it is drawn; scores and replaced tokens are not stored."""
        setup = self.record.setup
        name = UNPRUNED if self.unpruned else setup.method.spelled_out + f" seed {setup.seed}" * bool(setup.seed)
        name += f", {setup.protocol}" * (setup.protocol != "site")
        return Choice(self.record.model.name, name, setup.ratio, ShownAnswer(self.prediction, {}, Notes()))


def stored_drawing(store: Store, dataset: Dataset, row: ShownRow) -> Drawn:
    """Return a row of a benchmark with what all stored runs kept of it.

    Raises:
        UserError: no run stored that, of these data; or the runs decoded images or sampled frames differently.
    """
    found, without = list[StoredRow](), 0
    for record in store.records(lambda note: None):  # its notes are those of the leaderboard
        entry = record.datasets.get(row.benchmark)
        if entry is None:
            continue
        if entry.data != dataset.fingerprint:
            raise UserError(
                f"{record.identity} answered {row.benchmark} of another data file ({entry.data}, here "
                f"{dataset.fingerprint}); give its --data-dir"
            )
        answers = prediction_lines(store.predictions(record.identity, row.benchmark)).read()
        own = [one for one in answers if one.index == row.request.index and one.error is None]
        found += [StoredRow(record, one) for one in own if one.selections is not None]
        without += sum(one.selections is None for one in own)
    if not found:
        raise UserError(
            f"no run in {store.root} stored which tokens it kept of {row.name} ({without} answered it without that); "
            "run with --keep-selections, or leave out --stored"
        )
    setups = {(one.record.setup.image_decoding, one.record.setup.frames, one.record.setup.fps) for one in found}
    if len(setups) > 1:
        raise UserError(
            f"runs in {store.root} decoded the images of {row.name} in {len(setups)} ways (--image-decoding, --frames, "
            "--fps), so they cannot be drawn over one picture; keep runs of one way in a folder of their own"
        )
    [(decoding, frames, fps)] = setups
    pictures = Reader(decoding, FrameSampling(frames, fps)).pictures(row)
    return Drawn(row, pictures, lines_of(found))


def lines_of(found: Sequence[StoredRow]) -> list[list[Choice]]:
    """Return a line per model and ratio, each of which begins with the un-pruned model if that is stored."""
    whole = {one.record.model.name: one.choice for one in found if one.unpruned}
    pruned = sorted((one for one in found if not one.unpruned), key=lambda one: one.budget)
    lines: dict[tuple[str, float], list[Choice]] = {}
    for one in pruned:
        first = [whole[one.record.model.name]] if one.record.model.name in whole else []
        lines.setdefault(one.budget, first).append(one.choice)
    return list(lines.values()) or [[choice] for choice in whole.values()]
