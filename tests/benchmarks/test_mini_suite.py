"""The mini suite: the same questions everywhere, held-out scenes only, perfect answers score 100."""

from __future__ import annotations

import ast
import csv
import hashlib
import sys
from pathlib import Path

import pytest

from uniprune.benchmarks.mini import TASK_OF
from uniprune.benchmarks.mini.generate import TABLES, write
from uniprune.evaluation.dataset import DataOptions
from uniprune.registry import BENCHMARKS

pytestmark = pytest.mark.end_to_end

csv.field_size_limit(sys.maxsize)

DIGEST = "5246fffaf32727379be50743e69bec9416696a175afa8cba4daab7b6d031463f"
"""Of all index, question and answer cells; when it changes on purpose, raise `generate.VERSION` too."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def right(name: str, row: dict[str, str]) -> str:
    """Return the answers of a model that is always right."""
    if name == "ocrbench":
        return ast.literal_eval(row["answer"])[0]
    if name == "mathvista" and row["question_type"] == "multi_choice":
        return row["answer_option"]
    if name == "mia-bench":
        value = ast.literal_eval(row["components"])[0].split()[-1]
        form = ast.literal_eval(row["components"])[1]
        forms = {
            "twice": f"{value} {value}",
            "brackets": f"( {value})",
            "sentence": f"it is {value}.",
            "list": f"- {value}",
        }
        return forms[form.split()[-1]]
    return row["answer"]


def test_the_questions_are_the_recorded_ones(folder: Path) -> None:
    digest = hashlib.sha256()
    for name in TABLES:
        write(name, folder / f"{name}.tsv")
        for row in rows(folder / f"{name}.tsv"):
            digest.update("\t".join(row.get(c, "") for c in ("index", "question", "answer")).encode())
    assert set(TABLES) == set(TASK_OF)
    assert digest.hexdigest() == DIGEST


@pytest.mark.parametrize("name", TABLES)
def test_a_perfect_model_scores_100_and_a_silent_one_nothing(name: str, folder: Path) -> None:
    dataset = BENCHMARKS.get(f"mini-{name}")(DataOptions(data_dir=folder))
    assert not dataset.faulty
    (file,) = (folder).glob(f"mini-v*/mini-{name}.tsv")
    best = dataset.score({r["index"]: right(name, r) for r in rows(file)}, folder / "best")
    assert best.value == pytest.approx(100)
    assert best.rows == len(dataset) >= 80
    silent = dataset.score({r["index"]: "" for r in rows(file)}, folder / "silent")
    assert silent.value == 0
    assert best.judge == ("rule" if name in ("mathvista", "mathvision", "mia-bench") else "exact")
