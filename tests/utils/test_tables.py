"""CSV and Markdown text: the bytes of the csv module, and tables that GitHub reads."""

from __future__ import annotations

import csv
import io

import pytest

from uniprune.utils.tables import to_csv, to_markdown

COLUMNS = ("name", "count", "value", "sure")
ROWS = [
    {"name": 'a, "b"', "count": 1, "value": 0.1 + 0.2, "sure": True},
    {"name": "", "count": None, "value": 1e-300, "sure": False},
    {"name": "ü\nx", "value": 100.0},
]


def test_csv_has_the_bytes_of_the_csv_module() -> None:
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(ROWS)
    assert to_csv(COLUMNS, ROWS) == file.getvalue()
    assert to_csv(COLUMNS, [[row.get(name) for name in COLUMNS] for row in ROWS]) == file.getvalue()
    assert "0.30000000000000004" in file.getvalue()


def test_csv_of_no_rows_is_a_header() -> None:
    assert to_csv(COLUMNS, []) == "name,count,value,sure\n"


def test_csv_refuses_values_without_a_column() -> None:
    with pytest.raises(ValueError, match="no column for other"):
        to_csv(["a"], [{"a": 1}, {"other": 2}])


def test_markdown_escapes_the_bars_of_cells() -> None:
    assert to_markdown(["a", "b|c"], [["1", "x|y"]]) == "| a | b\\|c |\n| --- | --- |\n| 1 | x\\|y |\n"


@pytest.mark.parametrize("row", [{"name": "a", "value": float("nan")}, ["a", 1, float("inf"), True]])
def test_a_number_that_is_not_finite_is_no_field(row: object) -> None:
    with pytest.raises(
        ValueError, match=r"cell 0\..* is (nan|inf); a number that does not exist must be an empty field"
    ):
        to_csv(COLUMNS, [row])  # type: ignore[list-item]  # both forms of rows
