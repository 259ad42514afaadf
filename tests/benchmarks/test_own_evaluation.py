"""Every benchmark by VLMEvalKit is scored twice on the same made-up replies: here, and by the kit's own evaluation.

There the stock class reads the data from disk and the replies from a table in the kit's own format, a unit of scoring
(a row, a pair, a question's rotations) at a time. It gets the judge's replies that ours gets, and runs MathVision's
comparison and short answers in this process.
"""

from __future__ import annotations

import contextlib
import types
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.kit_agreement import named
from tests.helpers.kit_ratings import own_unit
from tests.helpers.kit_tables import EXAMPLES, write
from tests.helpers.made_up_replies import FORMS, replies
from uniprune.benchmarks._kit.boot import boot, session
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.judges import RuleJudge, injected
from uniprune.benchmarks._kit.official import OfficialFile
from uniprune.benchmarks._kit.repairs import _Here
from uniprune.benchmarks._kit.replacing import replaced
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.evaluation.dataset import DataOptions
from uniprune.registry import BENCHMARKS

pytestmark = pytest.mark.end_to_end

MOST = 3
"""Units of scoring per benchmark: the first of its example."""

NUMBER = "ours is right: the kit's table of replies reads 0012 and 007 as the numbers 12 and 7"
MISSING = "ours is the kit's rule for the reply as written: its table reads None as nan, in which it finds no option"
NAME = "ours is right: the kit runs the reply A as Python, where it is the variable that holds the right answer"
DIFFERENCES: dict[str, dict[str, str]] = {
    "ocrbench": dict.fromkeys(("{right}", "{text}", "{lower}", "{upper}"), NUMBER),
    "textvqa": {"007": NUMBER},
    "mia-bench": {"1e3": NUMBER},  # as "1000.0", which begins like a list
    "mathvision": {"{wrong}": NAME},
    "mathvision-mini": {"{wrong}": NAME},
    "realworldqa": {"None": MISSING},  # it finds the options "No" and "one" in that word
}
"""Benchmark -> form of reply -> why the two scores differ."""
SAMPLE = ("blink", "docvqa")
"""Benchmarks that `make test` runs; `make test-all` runs all."""


def by_the_kit() -> list[str]:
    """Every registered benchmark with an official file of images."""
    sources = {name: BENCHMARKS.entry(name).metadata.get("source") for name in BENCHMARKS.names()}
    return [name for name, source in sources.items() if isinstance(source, OfficialFile) and not source.task.video]


@contextlib.contextmanager
def stock(name: str, rows: Any) -> Iterator[tuple[Any, Path]]:
    """The kit's own class over its own reading of the file, and a folder."""
    kit, task = boot(), TASKS[name]
    cls = kit.dataset_class(task.module, task.cls)
    with session() as folder:
        write(folder / f"{task.kit_name}.tsv", rows)
        digests = {key: value for key, value in cls.DATASET_MD5.items() if key != task.kit_name}
        with (
            replaced(cls, DATASET_MD5=digests),
            replaced(kit.image_vqa, mp=types.SimpleNamespace(Pool=_Here)),
            replaced(kit.mathv, is_equal=kit.mathv.is_equal.__wrapped__),
        ):
            yield cls(dataset=task.kit_name), folder


def rated(name: str, data: Any, indices: list[str], texts: dict[str, str], folder: Path) -> float:
    """The kit's own rating of one unit, 0 to 1."""
    kit, judging = boot(), TASKS[name].judging
    table = data.data[[str(index) in indices for index in data.data["index"]]].drop(columns="image")
    table = table.assign(prediction=[texts[str(index)] for index in table["index"]])
    folder.mkdir()
    file = folder / "predictions.tsv"
    kit.file.dump(table, str(file))
    table = kit.load(str(file))  # the judge gets the replies that this table still has
    with contextlib.ExitStack() as stack:
        if judging is not None:
            stack.enter_context(injected(kit, data, RuleJudge(judging, "").replier(kit, table, folder)))
        rating = data.evaluate(str(file), model="judge" if judging else "exact_matching", nproc=1)
    # A rating of MM-Vet needs rows of all abilities, so the others get no reply.
    rows = [rating] if isinstance(rating, dict) else rating.to_dict("records")
    return own_unit(name, rows, len(table))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in SAMPLE else [pytest.mark.exhaustive]) for n in by_the_kit()]
)
def test_made_up_replies_are_credited_as_by_the_kit_itself(name: str, tmp_path: Path) -> None:
    rows = named(name)
    ours = KitDataset(
        name, TASKS[name], write(tmp_path / "t.tsv", list(rows.values())), DataOptions(tmp_path, judge="rule")
    )
    said = {index: replies(name, rows[index]) for index in (request.index for request in ours.requests())}
    found: dict[str, list[str]] = defaultdict(list)
    with stock(name, EXAMPLES[name].rows) as (data, folder):
        for number, form in enumerate(form for forms in FORMS.values() for form in forms):
            texts = {index: said[index][form] for index in said}
            score = ours.score(texts, tmp_path / "scores")
            for unit in list(score.per_item)[:MOST]:
                members = list(said) if name == "mm-vet" else units(name, ours, unit)
                others = {index: "" for index in members if name == "mm-vet" and index != unit}
                theirs = rated(name, data, members, texts | others, folder / f"{number}-{unit.replace('/', '-')}")
                if abs(theirs - score.per_item[unit]) > 1e-9:
                    found[form].append(f"{unit}: {texts[unit]!r} ours {score.per_item[unit]:g}, kit {theirs:g}")
    assert found.keys() == DIFFERENCES.get(name, {}).keys(), "\n".join(map(str, found.items()))


def test_no_benchmark_by_the_kit_is_left_out() -> None:
    assert set(by_the_kit()) == set(TASKS) == set(EXAMPLES)


def units(name: str, dataset: KitDataset, first: str) -> list[str]:
    """The rows that are scored as one item, from its first row."""
    if TASKS[name].grouping is None or name == "hallusionbench":
        return [first]
    if name == "mmvp":
        return [first, str(int(first) + 1)]
    groups = {request.index: request.group for request in dataset.requests()}
    return [index for index, group in groups.items() if group == groups[first]]
