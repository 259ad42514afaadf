"""A VLMEvalKit dataset behind the `Dataset` interface."""

from __future__ import annotations

import contextlib
import io
import re
import types
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

import pandas as pd

from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions, Request, Score, with_groups
from uniprune.modeling.messages import Part, RawQuestion

from . import images
from .boot import Kit, boot, session
from .clusters import clusters, shared
from .evaluators import literals_only
from .headline import headline
from .in_memory import in_memory
from .items import TABLES, Evaluation
from .judges import choose_judge, injected
from .official import remedy
from .repairs import repaired
from .table import KitTable, md5, read_table
from .task import Task

_BARE = re.compile(r"(?:\A\s*(?:Hint:.*?\n)?\s*Question:\s*)|(?:\n\s*(?:Choices|Options):.*\Z)|<image ?\d*>", re.S)
_YES_NO_HINT = re.compile(r"\s*Please answer yes or no\.?\s*\Z", re.I)


class KitDataset:
    """A benchmark whose prompts and scores are VLMEvalKit's.

    The TSV is read and checked here and passed to the kit's own class in memory, so the kit never downloads, replaces
    or caches anything, and the same class serves official and generated files.

    Args:
        name: registered name.
        task: class, columns, headline and judge of the dataset.
        tsv: the data file.
        options: data folder and judge.
        expected_md5: md5 of the official file; None accepts any file.

    Raises:
        UserError: the file is missing, damaged or not the expected one; a judge is needed and not configured.
    """

    def __init__(
        self, name: str, task: Task, tsv: Path, options: DataOptions, *, expected_md5: str | None = None
    ) -> None:
        self.name, self.ability, self.task = name, task.ability, task
        self._judge = choose_judge(name, task.judging, options)
        if not tsv.is_file():
            raise UserError(f"{name}: the data file {tsv} does not exist")
        self.fingerprint = md5(tsv)
        if expected_md5 not in (None, self.fingerprint):
            raise UserError(
                f"{name}: {tsv} is not the official file: md5 {self.fingerprint}, expected {expected_md5}; a partial "
                f"download or a changed file would give wrong scores: {remedy(name, options.data_dir)}"
            )
        self._kit: Any = self._boot()
        with session(), self._repaired(0):
            table = read_table(tsv, task, self._kit, official=expected_md5 is not None)
        self.faulty: Mapping[str, str] = table.faulty
        self._groups = table.groups
        self._clusters = clusters(table.names, table.visuals, table.groups)
        self._data = self._opened(table)
        self._indices = table.names
        self._requests: dict[int, Request] = {}
        if self._judge is not None:
            self._judge.check(name, self._data.data.assign(index=self._indices))

    def __len__(self) -> int:
        """Return the number of rows in the file, faulty ones included."""
        return len(self._indices) + len(self.faulty)

    @property
    def scorer(self) -> str:
        """Version of VLMEvalKit that makes its prompts and scores."""
        version: str = self._kit.version
        return version

    def requests(self, limit: int | None = None) -> list[Request]:
        """Return rows in file order; with a limit, the first complete questions (rotations, pairs) within it."""
        chosen = self._chosen(limit)
        if new := [
            position for position in chosen if position not in self._requests
        ]:  # a command plans, then evaluates
            with literals_only():  # once, as exchanging names takes longer than a row
                self._requests |= {position: self._request(position) for position in new}
        return [self._requests[position] for position in chosen]

    def score(
        self,
        predictions: Mapping[str, str],
        workdir: Path,
        limit: int | None = None,
        left_out: Mapping[str, str] = types.MappingProxyType({}),
    ) -> Score:
        """Score predictions with the kit's own `evaluate`, in a folder of its own.

        The kit gets the rows with a prediction only, in whole groups: rows scored together with one that is left out
        are left out, too. `details["faulty"]` names all rows that are not scored, with the reason. `workdir` holds
        nothing a score depends on but a model judge's replies, which are reused only for the identical request.

        Raises:
            UserError: predictions for other rows, rows without a prediction or a reason, no row to score, a judge that
                fails, or no readable grading.
        """
        positions = self._scored(predictions, limit, left_out)
        indices = [self._indices[position] for position in positions]
        table = self._rows(positions)
        table["prediction"] = [str(predictions[index]) for index in indices]
        workdir.mkdir(parents=True, exist_ok=True)
        with session() as folder, self._repaired(len(table)), contextlib.ExitStack() as stack:
            if self._judge is not None:
                replier = self._judge.replier(self._kit, table, workdir)
                stack.enter_context(injected(self._kit, self._data, replier))
            evaluation = self._evaluate(table, folder)
            credits = self.task.credits(evaluation)
        credits = credits.renamed(dict(zip(map(str, table["index"]), indices, strict=True)))
        if not credits.per_item:
            raise UserError(
                f"{self.name}: VLMEvalKit could read none of the judge's {len(table)} replies, so there is no score; "
                "use a stronger judge model"
            )
        out = with_groups(left_out, self.requests(limit))
        return Score(
            value=headline(credits),
            metric=self.task.metric,
            rows=len(table),
            unparsed=credits.unparsed,
            per_item=credits.per_item,
            clusters=shared(dict.fromkeys([*indices, *credits.per_item]), self._clusters),
            parts=credits.parts,
            details={**evaluation.details(), "faulty": {**self.faulty, **out}},
            judge=self._judge.label if self._judge else "exact",
            judge_note=self._judge.note if self._judge else self.task.note,
            scorer=self.scorer,
        )

    def _evaluate(self, table: Any, folder: Path) -> Evaluation:
        file = folder / f"predictions.{TABLES}"
        table.to_pickle(file)
        name, threads = ("judge", self._judge.threads) if self._judge else ("exact_matching", 1)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):  # progress bars
            try:
                rating = self._data.evaluate(str(file), model=name, nproc=threads)
            except UserError:  # the judge's
                raise
            except Exception as error:  # raised again where the credits need more than the kit has finished
                rating = error
        return Evaluation(self._kit, self.task.kit_name, table, rating, folder)

    def _scored(self, predictions: Mapping[str, str], limit: int | None, left_out: Mapping[str, str]) -> list[int]:
        """Return the positions of the rows to score.

        Raises:
            UserError: as `score`.
        """
        strange = sorted((set(predictions) | set(left_out)) - set(self._indices) - set(self.faulty))
        if strange:
            raise UserError(
                f"{self.name}: predictions for rows that it does not have: {', '.join(strange[:5])}; "
                "they belong to another dataset or another version of its file"
            )
        out = with_groups(left_out, self.requests(limit))
        positions = [position for position in self._chosen(limit) if self._indices[position] not in out]
        missing = [self._indices[position] for position in positions if self._indices[position] not in predictions]
        if missing:
            raise UserError(
                f"{self.name}: {len(missing)} rows have no prediction, for example {', '.join(missing[:5])}; an empty "
                "text is one and counts as wrong, a row that could not be asked belongs in `left_out`"
            )
        if not positions:
            raise UserError(f"{self.name}: all {len(out)} rows are left out, so there is no score")
        return positions

    def _chosen(self, limit: int | None) -> list[int]:
        if limit is None:
            return list(range(len(self._indices)))
        if limit < 1:
            raise UserError(f"limit {limit} must be at least 1 row")
        chosen: set[int] = set()
        for group in self._groups:
            if chosen and len(chosen) + len(group) > limit and not chosen.issuperset(group):
                break
            chosen.update(group)
        return sorted(chosen)

    def _request(self, position: int) -> Request:
        row, group = self._data.data.iloc[position], self._groups[position]
        items = self._message(position)
        return Request(
            index=self._indices[position],
            load=partial(self._load, position),
            question=_texts(items) if self.task.question_shown else bare_question(str(row["question"])),
            max_new_tokens=self.task.max_new_tokens,
            raw=self._raw_question(row, items),
            wording=_wording(items),
            group=self._indices[group[0]] if len(group) > 1 else "",
            videos=int(self.task.video is not None),
            answer="" if "answer" not in row or pd.isna(row["answer"]) else str(row["answer"]),
        )

    def _load(self, position: int) -> list[Part]:
        """Build the kit's message for a row, its images or videos opened."""
        return [
            Part(text=str(item["value"])) if item["type"] == "text" else self._shown(item["value"])
            for item in self._message(position)
        ]

    # --- what differs where rows have videos --------------------------------------------------------------------
    def _boot(self) -> Kit:
        """Return the kit."""
        return boot()

    def _repaired(self, rows: int) -> contextlib.AbstractContextManager[None]:
        """Replace functions of the kit inside a block."""
        return repaired(self._kit, rows)

    def _opened(self, table: KitTable) -> Any:
        """Return the kit's dataset object over a table."""
        return in_memory(self._kit, self.task, table)

    def _rows(self, positions: Sequence[int]) -> Any:
        """Return rows as the kit scores them."""
        return self._data.data.drop(columns="image").iloc[positions].reset_index(drop=True)

    def _message(self, position: int) -> Any:
        """Return the kit's message for a row: parts of `type` "text", "image" or "video" with a `value`."""
        with literals_only():
            return self._data.build_prompt(position)

    def _shown(self, value: str) -> Part:
        """Return the part of a message that shows an image or a video."""
        return Part(image=images.opened(value))

    def _raw_question(self, row: Any, items: Sequence[Mapping[str, Any]]) -> RawQuestion | None:
        """Return the row's cells that prompts are made of, and the kit's message, as the kit's wrappers read them."""
        cells = {name: str(row[name]) for name in ("hint", *ascii_uppercase) if name in row and not pd.isna(row[name])}
        texts = row["image"] if isinstance(row["image"], list) else [row["image"]]
        return RawQuestion(
            benchmark=self.task.kit_name,
            kind=_KINDS[self._data.TYPE],
            text=str(row["question"]),
            hint=cells.pop("hint", None),
            options=cells,
            images=tuple(partial(images.opened, text) for text in texts),
            message=tuple(
                texts.index(item["value"]) if item["type"] == "image" else str(item["value"]) for item in items
            ),
        )


def _texts(items: Sequence[Mapping[str, Any]]) -> str:
    """Return the texts of the kit's message for a row."""
    return "".join(str(item["value"]) for item in items if item["type"] == "text").strip()


def _wording(items: Sequence[Mapping[str, Any]]) -> tuple[str | int, ...]:
    """Return the texts of the kit's message for a row, and its images or videos by number, none of them opened."""
    number = count()
    return tuple(str(item["value"]) if item["type"] == "text" else next(number) for item in items)


_KINDS: dict[str, Literal["choice", "yes-no", "open", "own"]]
_KINDS = {"MCQ": "choice", "Y/N": "yes-no", "VQA": "open", "MCQ_MMMU_Pro": "own", "GROUNDING": "own"}
"""VLMEvalKit's dataset types."""


def bare_question(text: str) -> str:
    """Strip the formatting hints, option lists and image markers that some TSV files put around a question."""
    return _YES_NO_HINT.sub("", _BARE.sub("", text)).strip() or text
