"""Judges for the datasets that VLMEvalKit does not score by matching alone, given to the kit as objects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions

from .agreement import agreement_note
from .boot import Kit
from .model_judge import ModelJudge, api_key
from .replacing import replaced
from .task import Judging

Message = str | list[dict[str, str]]
"""Input of a judge in the kit: a text, or parts of `type` "text" or "image" with a `value`."""


class Replier(Protocol):
    """The interface that the kit uses of a judge."""

    def working(self) -> bool:
        """Check whether it can be used."""

    def generate(self, message: Message, temperature: float = 0.0) -> str:
        """Return the reply to one message."""


class Judge(Protocol):
    """A way to judge."""

    @property
    def label(self) -> str:
        """Its name in the scores."""

    @property
    def threads(self) -> int:
        """Messages that it takes at a time."""

    @property
    def note(self) -> str:
        """Remark on its verdicts, shown with a score; may be empty."""

    def check(self, name: str, table: Any) -> None:
        """Raise UserError if there is a row in dataset `name` that it cannot judge."""

    def check_available(self) -> None:
        """Raise UserError if the judge is unreachable."""

    def replier(self, kit: Kit, table: Any, workdir: Path) -> Replier:
        """Return the object that replies to the kit's messages about one table of predictions."""


def choose_judge(name: str, judging: Judging | None, options: DataOptions) -> Judge | None:
    """Return the judge of a dataset, None if exact matching is enough (it is used even if a judge is configured).

    Raises:
        UserError: one is needed and none, or only half of one, is configured.
    """
    if judging is None:
        return None
    if options.judge is None:
        raise UserError(
            f"{name} cannot be scored without a judge; give --judge rule (a program, labelled as such in the score), "
            f"give --judge URL and --judge-model NAME of an OpenAI-compatible server, or leave {name} out"
        )
    if options.judge == "rule":
        return RuleJudge(judging, agreement_note(name))
    if not options.judge.startswith(("http://", "https://")):
        raise UserError(f"judge {options.judge!r} is neither 'rule' nor the URL of an OpenAI-compatible server")
    if not options.judge_model:
        raise UserError(f"judge {options.judge!r} needs the name of a model there: --judge-model NAME")
    return ModelJudge(options.judge, options.judge_model, judging.max_tokens, api_key(), judging.system)


def check_judge(name: str, judging: Judging | None, options: DataOptions) -> None:
    """Check in seconds whether a dataset can be judged; a judge model replies to one tiny request.

    Raises:
        UserError: the judge is unreachable, does not know the model or refuses the key; or as `choose_judge`.
    """
    judge = choose_judge(name, judging, options)
    if judge is not None:
        judge.check_available()


@contextlib.contextmanager
def injected(kit: Kit, dataset: Any, replier: Replier) -> Iterator[None]:
    """Make the kit's `build_judge` return `replier`; the kit builds no wrapper, so none sends a request of its own.

    `MIABench.evaluate` also loads its official file anew for the images, so it gets `dataset` instead.
    """

    def build_judge(**kwargs: Any) -> Replier:
        return replier

    with (
        replaced(kit.image_vqa, build_judge=build_judge),
        replaced(kit.miabench, build_judge=build_judge, MIABench=lambda name: dataset),
    ):
        yield


@dataclass(frozen=True)
class RuleJudge:
    """A judge that replies by the rules of `rules.py`.

    Attributes:
        judging: the dataset's prompt and rule.
        note: its agreement with the benchmark's own verdicts.
        label: its name in the scores.
        threads: messages at a time.
    """

    judging: Judging
    note: str
    label: str = "rule"
    threads: int = 1

    def check(self, name: str, table: Any) -> None:
        """Refuse a table with a row that no rule covers."""
        for _, row in table.iterrows():
            refused = self.judging.refuses(row)
            if refused:
                raise UserError(
                    f"{name}: the rule judge has no rule for {refused[0]!r} (row {row['index']}) and does not guess; "
                    "this file needs a judge model: --judge URL --judge-model NAME"
                )

    def check_available(self) -> None:
        """Return at once: rules are always available."""

    def replier(self, kit: Kit, table: Any, workdir: Path) -> Replier:
        """Prepare replies to every prompt the kit can send about this table, by the prompt's text."""
        prompt = self.judging.prompt(kit)
        rows = (row for _, row in table.iterrows())
        return _Prepared({prompt(row): self.judging.rule(row) for row in rows})


@dataclass(frozen=True)
class _Prepared:
    """Replies known in advance, by prompt."""

    replies: Mapping[str, str]

    def working(self) -> bool:
        return True

    def generate(self, message: Message, temperature: float = 0.0) -> str:
        text = message if isinstance(message, str) else next(p["value"] for p in message if p["type"] == "text")
        return self.replies[text]
