"""One VLMEvalKit dataset as the runner sees it: rows to ask, predictions to score."""

from __future__ import annotations

import contextlib
import io
import re
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, overload

import pandas as pd
from PIL.Image import Image

from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions, Request, Score
from uniprune.modeling.messages import Part, RawQuestion

from . import images
from .boot import Kit, boot, replaced, session
from .clusters import clusters, shared
from .equality import is_equal
from .faults import is_literal
from .items import Evaluation
from .judges import choose_judge, injected
from .official import remedy
from .table import KitTable, md5, read_table
from .task import Task

_BARE = re.compile(r"(?:\A\s*(?:Hint:.*?\n)?\s*Question:\s*)|(?:\n\s*(?:Choices|Options):.*\Z)|<image ?\d*>", re.S)
_YES_NO_HINT = re.compile(r"\s*Please answer yes or no\.?\s*\Z", re.I)


class KitDataset:
    """A benchmark whose prompts and scores are VLMEvalKit's.

    The TSV is read and checked here and handed to the kit's own class in memory, so the kit never downloads, replaces
    or caches anything, and the same class serves official and generated files.

    Args:
        name: registered name. task: what the kit and we need to know of it. tsv: the data file.
        options: how to judge. expected_md5: of the official file; None accepts any file.

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
        table = read_table(tsv, task)
        self.faulty: Mapping[str, str] = table.faulty
        self._groups = table.groups
        self._clusters = clusters(table.frame, table.groups, task.linked)
        self._kit = boot()
        self._data = _load(self._kit, task, table)
        self._indices = [str(index) for index in self._data.data["index"]]
        if self._judge is not None:
            self._judge.check(name, self._data.data)

    def __len__(self) -> int:
        """Number of rows in the file, faulty ones included."""
        return len(self._indices) + len(self.faulty)

    def requests(self, limit: int | None = None) -> list[Request]:
        """Rows in file order; with a limit, the whole questions (rotations, pairs) that fit in first."""
        return [self._request(position) for position in self._chosen(limit)]

    def score(self, predictions: Mapping[str, str], workdir: Path, limit: int | None = None) -> Score:
        """Score predictions with the kit's own `evaluate`, in a folder of its own.

        Faulty rows are not scored (`details["faulty"]` names them); rows without a prediction are, as wrong
        (`details["missing"]`). `workdir` holds nothing a score depends on but a model judge's replies, which are found
        again only under the identical request.

        Raises:
            UserError: predictions for other rows, a judge that fails, or a grading nobody can read.
        """
        strange = sorted(set(predictions) - set(self._indices) - set(self.faulty))
        if strange:
            raise UserError(
                f"{self.name}: predictions for rows that it does not have: {', '.join(strange[:5])}; "
                "they belong to another dataset or another version of its file"
            )
        positions = self._chosen(limit)
        indices = [self._indices[position] for position in positions]
        table = self._data.data.drop(columns="image").iloc[positions].reset_index(drop=True)
        table["prediction"] = [str(predictions.get(index, "")) for index in indices]
        workdir.mkdir(parents=True, exist_ok=True)
        with session() as folder, _repaired(self._kit, len(table)), contextlib.ExitStack() as stack:
            if self._judge is not None:
                replier = self._judge.replier(self._kit, table, workdir)
                stack.enter_context(injected(self._kit, self._data, replier))
            evaluation = self._evaluate(table, folder)
            value, credits = self.task.headline(evaluation), self.task.credits(evaluation)
        return Score(
            value=value,
            metric=self.task.metric,
            rows=len(table),
            unparsed=credits.unparsed,
            per_item=credits.per_item,
            clusters=shared(dict.fromkeys([*indices, *credits.per_item]), self._clusters),
            parts=credits.parts,
            details={
                "table": _plain(evaluation.result),
                "missing": [index for index in indices if index not in predictions],
                "faulty": dict(self.faulty),
            },
            judge=self._judge.label if self._judge else "exact",
        )

    def _evaluate(self, table: Any, folder: Path) -> Evaluation:
        # A pickle, because a TSV would turn "0012" into 12, and "" or "None" into "nan", before they are matched.
        file = folder / "predictions.pkl"
        table.to_pickle(file)
        name, threads = ("judge", self._judge.threads) if self._judge else ("exact_matching", 1)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):  # progress bars
            result = self._data.evaluate(str(file), model=name, nproc=threads)
        if result is None or len(result) == 0:
            raise UserError(
                f"{self.name}: VLMEvalKit could read none of the judge's {len(table)} replies, so there is no score; "
                "use a stronger judge model"
            )
        return Evaluation(self._kit, self.task.kit_name, table, result, folder)

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
        row = self._data.data.iloc[position]
        return Request(
            index=self._indices[position],
            parts=_Parts(lambda: self._data.build_prompt(position)),
            question=bare_question(str(row["question"])),
            max_new_tokens=self.task.max_new_tokens,
            asked=self._asked(row),
        )

    def _asked(self, row: Any) -> RawQuestion:
        """The row's cells that prompts are made of, as the kit's wrappers read them."""
        cells = {name: str(row[name]) for name in ("hint", *ascii_uppercase) if name in row and not pd.isna(row[name])}
        texts = row["image"] if isinstance(row["image"], list) else [row["image"]]
        return RawQuestion(
            benchmark=self.task.kit_name,
            kind=_KINDS[self._data.TYPE],
            text=str(row["question"]),
            hint=cells.pop("hint", None),
            options=cells,
            pictures=_Pictures(texts),
        )


_KINDS: Mapping[str, Literal["choice", "yes-no", "open"]] = {"MCQ": "choice", "Y/N": "yes-no", "VQA": "open"}
"""VLMEvalKit's types of datasets."""


def bare_question(text: str) -> str:
    """A question without the formatting hints, option lists and image markers some TSV files put around it."""
    return _YES_NO_HINT.sub("", _BARE.sub("", text)).strip() or text


class _Parts(Sequence[Part]):
    """The parts of a message, built (and its images decoded) whenever they are looked at, never kept."""

    def __init__(self, prompt: Callable[[], list[dict[str, str]]]) -> None:
        self._prompt = prompt

    def _built(self) -> tuple[Part, ...]:
        return tuple(
            Part(image=images.decode(item["value"])) if item["type"] == "image" else Part(text=str(item["value"]))
            for item in self._prompt()
        )

    def __len__(self) -> int:
        return len(self._prompt())

    def __iter__(self) -> Iterator[Part]:
        return iter(self._built())

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Part]: ...
    def __getitem__(self, index: int | slice) -> Part | Sequence[Part]:
        return self._built()[index]


class _Pictures(Sequence[Image]):
    """Pictures decoded whenever they are looked at, never kept."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | Sequence[Image]:
        texts = self._texts[index]
        return images.decode(texts) if isinstance(texts, str) else [images.decode(text) for text in texts]


def _load(kit: Kit, task: Task, table: KitTable) -> Any:
    """The kit's dataset object over a table in memory, by the two hooks the kit offers its subclasses."""
    base = kit.dataset_class(task.module, task.cls)

    class InMemory(base):  # type: ignore[misc, valid-type]
        def load_data(self, dataset: str) -> Any:
            return table.frame

        def dump_image(self, line: Any) -> list[str]:
            """The base64 texts themselves: the kit's cache of PNG files goes stale when a TSV changes."""
            return line["image"] if isinstance(line["image"], list) else [line["image"]]

    with session():
        return InMemory(task.kit_name)


@contextlib.contextmanager
def _repaired(kit: Kit, rows: int) -> Iterator[None]:
    """Five of the kit's functions, exchanged while it scores.

    `is_equal` evaluates the model's answer as Python code; ours reads arithmetic. `istype` evaluates plain answers of
    the data file; ours reads literals. `Pool` forks sixteen copies of this process, for a second of work; ours stays
    here. `timestr` names a file in the temporary folder by the second, which two scorings can share; ours
    never repeats, and the file is removed. `dump` rewrites all results after every row; ours waits for the last one.
    """
    stamp, dump = f"uniprune-{uuid.uuid4().hex}", kit.mp_util.dump

    def dump_complete(results: Mapping[Any, Any], file: str) -> None:
        if len(results) in (0, rows):
            dump(results, file)

    try:
        with (
            replaced(kit.mathv, is_equal=is_equal),
            replaced(kit.vqa_eval, istype=is_literal),
            replaced(kit.image_vqa, mp=types.SimpleNamespace(Pool=_Here)),
            replaced(kit.multiple_choice, timestr=lambda: stamp),
            replaced(kit.mp_util, dump=dump_complete),
        ):
            yield
    finally:
        Path(f"/tmp/{stamp}.tsv").unlink(missing_ok=True)  # the kit writes there whatever the system's setting


class _Here:
    """`multiprocessing.Pool` without processes."""

    def __init__(self, processes: int) -> None:
        self.processes = 1

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> list[Any]:
        """The results in order."""
        return [function(task) for task in tasks]


def _plain(result: Any) -> Any:
    """The kit's result (a dict or a DataFrame) as JSON values; numbers that do not exist become null."""
    rows = [result] if isinstance(result, dict) else result.to_dict("records")
    return [{str(key): _scalar(value) for key, value in row.items()} for row in rows]


def _scalar(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value != value else value
