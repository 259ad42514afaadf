"""Tables of one's own whose quotation marks or encoding would make them other tables without an error."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.kit_tables import png, write
from uniprune.benchmarks._kit.boot import boot
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.table import md5
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.benchmarks._kit.tsv_text import check_text
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions
from uniprune.registry import BENCHMARKS
from uniprune.tuning.instruction_data import Problems, read_rows

COLUMNS = "index\timage\tquestion\tA\tB\tanswer\tcategory\n"
IMAGE = png(7) + "=" * 200_000  # longer than the csv module's limit of a cell


def row(index: int, question: str = "Which?", category: str = "Chart") -> str:
    return f"{index}\t{IMAGE}\t{question}\tred\tblue\tA\t{category}\n"


def table(folder: Path, *rows: str, encoding: str = "utf-8") -> Path:
    path = folder / "own.tsv"
    path.write_bytes((COLUMNS + "".join(rows)).encode(encoding))
    return path


SWALLOWED = {
    "two lone marks": ((row(0), row(1, '"Stop sign'), row(2), row(3, '"Go sign'), row(4)), "line 3: .* lines 3 to 5;"),
    "closed three rows later": ((row(0), row(1, '"Stop'), row(2), row(3, 'Go"'), row(4)), "line 3: .* lines 3 to 5;"),
    "closed in the next row": ((row(0, category='"a'), row(1, category='b"')), "line 2: .* lines 2 to 3;"),
    "never closed": ((row(0), row(1, '"Stop'), row(2), row(3)), "line 3: .* lines 3 to 5;"),
    "a word in marks": ((row(0), row(1, '"Stop" sign')), "line 3: .* cells of its line;"),
    "closed in the next cell": ((row(0, '"Which?').replace("\tred", '\tred"'),), "line 2: .* cells of its line;"),
    "opened again in its line": ((row(0, '"Which?').replace("\tred", '\t"red'),), "line 2: .* cells of its line;"),
}


@pytest.mark.parametrize("name", SWALLOWED)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_lone_quotation_marks_are_named_by_line(name, ends, tmp_path):
    rows, message = SWALLOWED[name]
    path = table(tmp_path, *(text.replace("\n", ends) for text in rows))
    with pytest.raises(UserError, match=rf"own\.tsv, {message}"):
        KitDataset("my", TASKS["seedbench2-plus"], path, DataOptions(tmp_path))


@pytest.mark.parametrize(
    "question",
    ['the "stop" sign', '5" wide', '"a ""quoted"" word"', '"""Stop"" sign"', '"two\nlines"', '"a\ttab"', '""'],
)
def test_marks_that_are_as_they_were_meant(question, tmp_path):
    path = table(tmp_path, row(0), row(1, question), row(2))
    check_text(path)
    with path.open(newline="") as file:
        csv.field_size_limit(2**20)
        expected = next(cells[2] for cells in csv.reader(file, delimiter="\t") if cells[0] == "1")
        csv.field_size_limit(131_072)
    assert pd.read_csv(path, sep="\t", keep_default_na=False)["question"].tolist() == ["Which?", expected, "Which?"]


def test_a_table_within_a_cell(tmp_path):
    check_text(table(tmp_path, row(0, '"name\tage\nAnn\t7\nBob\t9\n"'), row(1, category='"two\nlines"'), "\n", row(2)))


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("gbk", r"own\.tsv, line 3: not UTF-8 \(invalid .*\); save the file as UTF-8"),
        ("utf-16", r"own\.tsv, line 1: not UTF-8"),
        ("utf-16-le", r"own\.tsv, line 1: null characters, as in UTF-16; save the file as UTF-8"),
        ("shift-jis", r"own\.tsv, line 3: not UTF-8"),
    ],
)
def test_other_encodings_are_refused_by_line(encoding, message, tmp_path):
    path = table(tmp_path, row(0), row(1, "何色"), encoding=encoding)
    with pytest.raises(UserError, match=message):
        KitDataset("my", TASKS["pope"], path, DataOptions(tmp_path))


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    rows = [{"index": 0, "image": png(7), "question": "Rot?", "answer": "Yes", "category": "random"}]
    path = write(tmp_path / "own.tsv", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    [request] = KitDataset("my", TASKS["pope"], path, DataOptions(tmp_path)).requests()
    assert (request.index, request.question) == ("0", "Rot?")


def test_an_official_file_is_read_as_the_kit_reads_it(tmp_path, monkeypatch):
    cells = {"question": "What is it", "answer": "Yes", "category": "random"}
    rows = [{"index": i, "image": png(i), **cells} for i in range(3)]
    path = write(tmp_path / "POPE.tsv", rows)
    path.write_text(path.read_text().replace("What is it", '"Stop" sign', 1))
    with pytest.raises(UserError, match="line 2: an unclosed quotation mark"):
        KitDataset("pope", TASKS["pope"], path, DataOptions(tmp_path))
    monkeypatch.setitem(boot().image_yorn.ImageYORNDataset.DATASET_MD5, "POPE", md5(path))
    assert BENCHMARKS.get("pope")(DataOptions(tmp_path)).requests()[0].question == "Stop sign"


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_instruction_data_in_other_encodings(suffix, tmp_path):
    row = {"instruction": "你", "output": "b"}
    text = json.dumps([row], ensure_ascii=False) if suffix == "json" else json.dumps(row, ensure_ascii=False) + "\n"
    path = tmp_path / f"data.{suffix}"
    for encoding in ("gbk", "utf-16"):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(UserError, match=rf"data\.{suffix}, line 1: not UTF-8"):
            read_rows(path, Problems())
    problems = Problems()
    path.write_bytes(text.encode("utf-8-sig"))
    assert (read_rows(path, problems), problems.rows) == ([row], {})
