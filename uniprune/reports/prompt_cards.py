"""Table of the prompts that every family takes for docs/prompts.md, by trying every method on tiny models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from uniprune.engine import prune
from uniprune.errors import UserError
from uniprune.evaluation.prompts import check_hidden
from uniprune.modeling.tiny import TinyModel, tiny_model
from uniprune.pruning.base import Pruner
from uniprune.reports.method_cards import embedded
from uniprune.reports.model_cards import RATIO, families
from uniprune.utils.tables import to_markdown, with_table

BEGIN = "<!-- python run.py cards --prompts docs/prompts.md -->"
TURN = (11, 12, 13)
"""Ids of a later turn, or of a question that continues a prefix."""


@dataclass(frozen=True)
class Trial:
    """A family's tiny model.

    Attributes:
        tiny: makes its prompts.
    """

    tiny: TinyModel

    @cached_property
    def model(self) -> Any:
        """The model, with random weights."""
        return self.tiny.model()

    def inputs(self, images: int = 1, clips: int = 0, before: int = 5, question: int = 7) -> dict[str, Tensor]:
        """Return the arguments of a forward for one prompt of so many images, videos, and words before and after."""
        sizes, generator = [self.tiny.size] * images, torch.Generator().manual_seed(0)
        return self.tiny.batch([self.tiny.prompt(generator, sizes, before, question=question, clips=clips)])

    def prefilled(self, pruner: Pruner, images: int = 1, clips: int = 0, before: int = 5) -> None:
        """Run a prefill."""
        inputs = self.inputs(images, clips, before)
        with prune(self.model, pruner), torch.no_grad():
            self.model(**inputs)

    def hidden(self, pruner: Pruner) -> None:
        """Run a prefill whose image comes first, as a run without the question does."""
        check_hidden(pruner, len(self.tiny.adapter.layers))
        self.prefilled(pruner, before=1)

    def continued(self, pruner: Pruner) -> None:
        """Prefill up to the image, and continue with a question."""
        with prune(self.model, pruner) as session, torch.no_grad():
            self.model(**session.prefix(self.inputs(question=0)).continued(torch.tensor([TURN])))

    def later(self, pruner: Pruner, images: int) -> None:
        """Run a prefill, and a later turn of text, with or without an image."""
        turn = self.inputs(images, before=1) if images else {"input_ids": torch.tensor([TURN])}
        with prune(self.model, pruner), torch.no_grad():
            cache = self.model(**self.inputs(), use_cache=True).past_key_values
            self.model(**{**turn, "attention_mask": None}, past_key_values=cache)


KINDS: dict[str, Callable[[Trial, Pruner], None]] = {
    "one image": lambda trial, pruner: trial.prefilled(pruner),
    "several images": lambda trial, pruner: trial.prefilled(pruner, 2),
    "video": lambda trial, pruner: trial.prefilled(pruner, 0, clips=1),
    "image and video": lambda trial, pruner: trial.prefilled(pruner, 1, clips=1),
    "question hidden": Trial.hidden,
    "prefix continued": Trial.continued,
    "later turn": lambda trial, pruner: trial.later(pruner, 0),
    "later turn with an image": lambda trial, pruner: trial.later(pruner, 1),
}
"""Kinds of prompts."""


def methods() -> dict[str, Pruner]:
    """Return every method of this repository that prunes in a model, at its defaults."""
    kinds = ("none", "input")
    return {entry.name: entry.target(ratio=RATIO) for entry in embedded() if entry.target.kind not in kinds}


def refusals(family: str, kind: str) -> Iterator[tuple[str, str]]:
    """Yield the methods that a family's tiny model refuses for a kind of prompt, with the reason."""
    trial = Trial(tiny_model(family))
    for name, pruner in methods().items():
        try:
            KINDS[kind](trial, pruner)
        except UserError as error:
            yield name, _general(str(error), family, trial, pruner)


def prompt_cards(names: list[str] | None = None) -> str:
    """Return the table of all families, or of those named, and below it what is refused and why."""
    notes: dict[tuple[str, str], int] = {}
    rows = []
    for family in names or [entry.name for entry in families()]:
        cells = []
        for kind in KINDS:
            reasons: dict[str, list[str]] = {}
            for name, reason in refusals(family, kind):
                reasons.setdefault(reason, []).append(name)
            refused = sum(map(len, reasons.values()))
            numbers = [notes.setdefault((_few(given), why), len(notes) + 1) for why, given in reasons.items()]
            taken = "all" if not refused else "none" if refused == len(methods()) else "all but"
            cells.append(" ".join([taken, *(f"[{number}]" for number in numbers)]))
        rows.append([f"`{family}`", *cells])
    below = "".join(f"\n{number}. {few}: {reason}" for (few, reason), number in notes.items())
    return to_markdown(("family", *KINDS), rows) + (f"\nRefused, because:\n{below}\n" if below else "")


def with_cards(page: str) -> str:
    """Return a page with the table between its marks.

    Raises:
        UserError: it has no marks.
    """
    return with_table(page, BEGIN, prompt_cards)


def _general(reason: str, family: str, trial: Trial, pruner: Pruner) -> str:
    """Return a reason in one line, without the names of method and family, which many have in common."""
    adapter = trial.tiny.adapter
    stages = [stage.pruner for stage in pruner.schedule(len(adapter.layers))]
    for name in {type(one).__name__ for one in (pruner, *stages)}:
        reason = reason.replace(name, "the method")
    reason = reason.replace(f"family {family}", "this family").replace(type(adapter).__name__, "this family")
    return " ".join(reason.split())


def _few(names: list[str]) -> str:
    return "every method" if len(names) == len(methods()) else ", ".join(names)
