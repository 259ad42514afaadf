"""Damaged files and rows, official files, and what the benchmarks are registered as."""

from __future__ import annotations

import base64
import builtins
import io
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.kit_tables import EXAMPLES, write
from tests.helpers.paths import ROOT
from uniprune.benchmarks._kit.boot import boot
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions
from uniprune.registry import BENCHMARKS


def opened(name: str, folder: Path, rows) -> KitDataset:
    return KitDataset(name, TASKS[name], write(folder / f"{name}.tsv", rows), DataOptions(folder, judge="rule"))


def changed(name: str, at: int, **cells) -> list:
    """The example's rows with some cells of one row replaced."""
    rows = [dict(row) for row in EXAMPLES[name].rows]
    rows[at].update(cells)
    return rows


NOISE = io.BytesIO()
Image.effect_noise((64, 64), 90).save(NOISE, "PNG")
TRUNCATED = base64.b64encode(NOISE.getvalue()[:2000]).decode()


@pytest.mark.parametrize(
    ("name", "at", "cells", "reason"),
    [
        ("pope", 1, {"image": TRUNCATED}, "cannot be decoded"),
        ("pope", 1, {"image": "%" * 200}, "cannot be decoded"),
        ("pope", 1, {"image": ""}, "no image"),
        ("pope", 1, {"image": "77"}, "refers to row '77'"),
        ("pope", 1, {"answer": ""}, "field 'answer' is empty"),
        ("pope", 1, {"answer": "maybe"}, "answer 'maybe' is not one that POPE scores"),
        ("pope", 1, {"index": "0"}, "more than once"),
        ("pope", 1, {"index": "__import__('os')"}, "other characters"),
        ("seedbench2-plus", 1, {"A": "", "B": ""}, "no answer option"),
        ("seedbench2-plus", 1, {"category": ""}, "field 'category' is empty"),
        ("ocrbench", 1, {"category": "Handwriting"}, "'Handwriting' is not one that OCRBench scores"),
        ("ocrbench", 1, {"answer": "__import__('os').getcwd()"}, "not a list literal"),
        ("ocrbench", 1, {"answer": "[3]"}, "not all texts"),
        ("mathvista", 1, {"skills": "arithmetic"}, "not a list literal"),
        ("mathvista", 1, {"skills": "[['arithmetic']]"}, "elements of field 'skills' are not all texts"),
        ("pope", 1, {"image": "[]" + " " * 70}, "damaged list, or one of anything but base64 texts"),
        ("pope", 1, {"image": str([[TRUNCATED]])}, "damaged list, or one of anything but base64 texts"),
        ("mathvista", 2, {"answer_option": ""}, "'answer_option' is empty"),
        ("mathvista", 2, {"choices": "red"}, "not a list literal"),
        ("mathvision", 1, {"choices": "[", "answer": "7"}, "not a list literal"),
        ("mia-bench", 1, {"num_of_component": 2}, "disagree"),
        ("mia-bench", 1, {"component_weight": "[3, -3, 5]"}, "must be positive"),
        ("hallusionbench", 3, {"index": "VD_3"}, "no set, figure and question"),
        ("mmmu", 0, {"question": "Which of <image 3>?"}, "names image 3, but it has 2"),
        ("mmmu", 0, {"A": "<image one>"}, "not of the form '<image 1>'"),
        ("textvqa", 1, {"answer": "acme"}, "not a list literal"),
        ("textvqa", 1, {"answer": "[]"}, "list of answers is empty"),
        ("textvqa", 1, {"answer": "[1, 2]"}, "not all texts"),
        ("chartqa", 1, {"answer": "[]"}, "list of answers is empty"),
        ("gqa", 1, {"image": TRUNCATED}, "cannot be decoded"),
    ],
)
def test_a_faulty_row_is_named_and_left_out(name, at, cells, reason, tmp_path):
    dataset = opened(name, tmp_path, changed(name, at, **cells))
    [(index, found)] = dataset.faulty.items()
    assert reason in found
    size = len(EXAMPLES[name].answers)
    assert len(dataset) == size and len(dataset.requests()) == size - 1
    asked = [request.index for request in dataset.requests()]
    score = dataset.score(dict.fromkeys(asked, "Yes"), tmp_path)
    assert score.rows == size - 1 and score.details["faulty"] == {index: found}


def test_rows_scored_together_fall_together(tmp_path):
    mme = opened("mme", tmp_path, changed("mme", 2, question=""))
    assert mme.faulty == {"2": "field 'question' is empty", "3": "scored together with row 2, which is faulty"}
    answers = {k: v for k, v in EXAMPLES["mme"].answers.items() if k not in mme.faulty}
    assert mme.score(answers, tmp_path).value == pytest.approx(100 * (200 + 50) / 400)

    rows = EXAMPLES["mmbench-en"].rows
    torn = opened("mmbench-en", tmp_path, [row for row in rows if row["index"] != 0 or row["image"] == "0"])
    assert set(torn.faulty) == {str(row["index"]) for row in rows[1:4]}
    single = opened("mme", tmp_path, EXAMPLES["mme"].rows[:-1])
    assert single.faulty == {"4": "1 rows share this image and category; MME scores pairs"}


def test_the_first_of_two_rows_with_one_index_counts(tmp_path):
    dataset = opened("pope", tmp_path, changed("pope", 1, index="0"))
    assert dataset.faulty == {"row 2": "index '0' occurs more than once"}
    assert dataset.requests()[0].load()[0].image.getpixel((0, 0)) == (0, 40, 200)


def test_a_faulty_row_still_lends_its_image(tmp_path):
    rows = changed("pope", 0, answer="")
    rows[1]["image"] = "0"
    dataset = opened("pope", tmp_path, rows)
    assert list(dataset.faulty) == ["0"]
    assert dataset.requests()[0].load()[0].image.getpixel((0, 0)) == (0, 40, 200)


def test_a_faulty_row_does_not_change_the_others(tmp_path):
    """An empty index or option would otherwise turn whole columns into decimals: index "1.0", option "3.0"."""
    rows = [row | {"A": 3, "B": 4} for row in EXAMPLES["seedbench2-plus"].rows]
    rows[1] |= {"index": "", "A": "", "B": ""}
    dataset = opened("seedbench2-plus", tmp_path, rows)
    assert [r.index for r in dataset.requests()] == ["0", "2", "3"]
    assert "A. 3\nB. 4\n" in dataset.requests()[0].load()[1].text
    assert list(dataset.faulty) == ["row 2"]


def test_a_line_with_stray_tabs_is_named(tmp_path):
    tsv = write(tmp_path / "pope.tsv", EXAMPLES["pope"].rows)
    lines = tsv.read_text().splitlines()
    lines[2] += "\ttoo\tmany"
    tsv.write_text("\n".join(lines))
    dataset = KitDataset("pope", TASKS["pope"], tsv, DataOptions(tmp_path))
    assert list(dataset.faulty) == ["line 3"] and "saw 7" in dataset.faulty["line 3"]
    assert len(dataset) == 4 and [r.index for r in dataset.requests()] == ["0", "2", "3"]


def test_a_line_with_missing_cells_is_named(tmp_path):
    tsv = write(tmp_path / "pope.tsv", EXAMPLES["pope"].rows)
    lines = tsv.read_text().splitlines()
    lines[2] = "\t".join(lines[2].split("\t")[:3])
    tsv.write_text("\n".join(lines))
    assert KitDataset("pope", TASKS["pope"], tsv, DataOptions(tmp_path)).faulty == {"1": "field 'answer' is empty"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"index\timage\n0\tx\n", "no column 'question', 'answer'"),
        (b"\xff\xfe\x00\x80", "not UTF-8"),
        (b"index\timage\tquestion\tanswer\tcategory\n0\t\tq\tYes\tc\n", "no usable row; 0: no image"),
        (b'index\timage\tquestion\tanswer\tcategory\n0\tx\t"q\tYes\tc\n', "line 2: an unclosed quotation mark"),
        (b"<html>not found</html>", "no column"),
    ],
)
def test_a_file_that_is_no_table_is_refused(content, message, tmp_path):
    tsv = tmp_path / "POPE.tsv"
    tsv.write_bytes(content)
    with pytest.raises(UserError, match=message):
        KitDataset("pope", TASKS["pope"], tsv, DataOptions(tmp_path))


@pytest.mark.parametrize("name", TASKS)
def test_official_files_are_wanted_unchanged(name, tmp_path):
    task, options = TASKS[name], DataOptions(tmp_path, judge="rule")
    command = rf"run: python run\.py download {name} --data-dir {tmp_path}$"
    with pytest.raises(UserError, match=rf"{task.kit_name}\.tsv does not exist; {command}"):
        BENCHMARKS.get(name)(options)
    tsv = write(tmp_path / f"{task.kit_name}.tsv", EXAMPLES[name].rows)
    content = tsv.read_bytes()
    with pytest.raises(
        UserError, match=rf"{task.kit_name}\.tsv is not the official file: md5 \w+, expected \w+; .*{command}"
    ):
        BENCHMARKS.get(name)(options)
    assert tsv.read_bytes() == content and list(tmp_path.iterdir()) == [tsv]


def test_a_file_with_the_official_md5_is_loaded(tmp_path, monkeypatch):
    from uniprune.benchmarks._kit.table import md5

    tsv = write(tmp_path / "POPE.tsv", EXAMPLES["pope"].rows)
    monkeypatch.setitem(boot().image_yorn.ImageYORNDataset.DATASET_MD5, "POPE", md5(tsv))
    dataset = BENCHMARKS.get("pope")(DataOptions(tmp_path))
    assert dataset.score(EXAMPLES["pope"].answers, tmp_path).value == pytest.approx(75)


def test_what_is_registered():
    entries = {name: BENCHMARKS.entry(name) for name in TASKS}
    suites = {suite: {n for n, e in entries.items() if e.metadata["suite"] == suite} for suite in ("ten", "zspaprune")}
    assert len(suites["ten"]) == 11  # MMBench in two languages
    assert {entries[name].metadata["ability"] for name in suites["ten"]} == {
        *("comprehensive", "mathematical", "ocr", "instruction", "multidisciplinary", "hallucination")
    }
    assert suites["zspaprune"] == {"mmmu", "gqa", "ai2d", "textvqa", "chartqa"}
    assert all(entry.summary == TASKS[name].summary for name, entry in entries.items())
    judged = {"mathvista", "mathvision", "mathvision-mini", "mia-bench", "mm-vet", "llava-bench"}
    assert {name for name, entry in entries.items() if entry.metadata["judge"]} == judged
    assert EXAMPLES.keys() == TASKS.keys()


def test_official_files_are_those_of_the_kit():
    """Every dataset exists in VLMEvalKit under its name, with an address and an md5, and is of the kind we say."""
    for task in TASKS.values():
        dataset = boot().dataset_class(task.module, task.cls)
        assert dataset.DATASET_URL[task.kit_name].endswith(".tsv")
        assert re.fullmatch(r"[0-9a-f]{32}", dataset.DATASET_MD5[task.kit_name])
        assert task.rows > 0


def test_mmmu_asks_its_validation_rows_only(tmp_path):
    rows = changed("mmmu", 1, split="")
    dataset = opened("mmmu", tmp_path, rows)
    assert [request.index for request in dataset.requests()] == ["0", "2", "3", "4"]
    assert dataset.faulty == {"1": "field 'split' is empty"}
    texts = [part.text for part in dataset.requests()[0].load()]
    assert [text is None for text in texts] == [False, True, False, True, False]  # pictures stand where they are named


def test_no_evaluation_starts_a_process_or_runs_an_answer(tmp_path, monkeypatch):
    """VLMEvalKit would fork for MathVision and short answers, and evaluate what a model said."""
    evaluated, started = [], []
    run = builtins.eval

    def spy(text, *scopes):
        frame = sys._getframe(1)
        if str(frame.f_globals["__name__"]).startswith("vlmeval") or "answered" in str(text):
            evaluated.append(str(text))
        return run(text, *(scopes or (frame.f_globals, frame.f_locals)))

    def refuse(self):
        started.append(self)  # the kit swallows exceptions
        raise OSError

    monkeypatch.setattr(builtins, "eval", spy)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    said = "print('answered') or 7"
    for name in TASKS:
        rows = EXAMPLES[name].rows
        if name == "chartqa":  # the text of a right answer is not run either
            rows = [*rows, rows[0] | {"index": "9", "answer": "print('answered')"}]
        dataset = opened(name, tmp_path, rows)
        dataset.score({request.index: said for request in dataset.requests()}, tmp_path / "scores")
    assert not evaluated and not started


def test_listing_loads_neither_the_kit_nor_pandas():
    code = (
        "import sys; from uniprune.registry import BENCHMARKS; import uniprune.benchmarks.real; "
        "assert not {'pandas', 'torch', 'vlmeval'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
