"""The printed numbers are the papers': whatever follows from others is computed, and agrees or is an erratum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from uniprune.reports.papers.line import Printed
from uniprune.reports.papers.measures import AGAINST, DIRECT, MEANS
from uniprune.reports.papers.tables import TABLES as FOLDER
from uniprune.reports.papers.tables import PaperTable, read_table

TABLES = {"uniprunebench": 7, "zspaprune": 6, "fopru": 5}
NAMES = sorted(path.stem for path in FOLDER.glob("*.csv"))
"""Tables with numbers of their own; those of the others are tested with the printed data."""
UNRELATED = {"fopru-table3", "uniprunebench-table4", "zspaprune-table2", "zspaprune-table4"}
"""Tables that print no mean, no change and no speed-up of numbers that they print as well."""
SLACK = 0.1  # some changes and means are cut off instead of rounded


def half(printed: str) -> float:
    """Return the largest distance of a rounded number from the true one."""
    return 0.5 * 10 ** -len(printed.partition(".")[2])


def single(lines: Sequence[Printed]) -> Printed:
    assert len(lines) == 1, lines
    return lines[0]


def row(table: PaperTable, line: Printed, quantity: str) -> list[Printed]:
    return [other for other in table.lines if other.place == line.place and other.quantity == quantity]


def beside(table: PaperTable, line: Printed, quantity: str) -> Printed:
    """The number of another quantity in the same row, of the same benchmark and column."""
    found = [other for other in row(table, line, quantity) if other.benchmark == line.benchmark]
    same = [other for other in found if other.column == line.column]
    return single(same or found)


def vanilla(table: PaperTable, line: Printed, quantity: str) -> Printed:
    found = [
        other
        for other in table.lines
        if (other.method, other.model, other.benchmark) == ("none", line.model, line.benchmark)
        and other.quantity == quantity
    ]
    return single([other for other in found if other.column == line.column] or found)


def possible(combine: Callable[[float, float], float], *printed: Printed) -> tuple[float, float]:
    """Smallest and largest value of a function that is monotone in what two rounded numbers may have been."""
    one, other = ((float(p.value) - half(p.value), float(p.value) + half(p.value)) for p in printed)
    corners = [combine(a, b) for a in one for b in other]
    return min(corners), max(corners)


def computed(table: PaperTable) -> Iterator[tuple[Printed, float, float]]:
    """Every number that follows from others, with the range these allow."""
    for line in table.lines:
        if not line.value:
            continue
        if line.quantity in MEANS:
            parts = row(table, line, MEANS[line.quantity])
            assert len(parts) >= 6
            mean = sum(float(part.value) for part in parts) / len(parts)
            margin = sum(half(part.value) for part in parts) / len(parts)
            yield line, mean - margin, mean + margin
        elif line.quantity in AGAINST:
            base, combine = AGAINST[line.quantity]
            pruned = beside(table, line, base)
            if pruned.value:
                yield line, *possible(combine, pruned, vanilla(table, line, base))


def slack(line: Printed) -> float:
    return SLACK if line.quantity in ("change %", "average relative %") else 0


def test_every_table_of_the_papers_is_there() -> None:
    assert sorted(f"{paper}-table{n}" for paper, count in TABLES.items() for n in range(1, count + 1)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_well_formed(name: str) -> None:
    lines = read_table(name).lines
    assert lines
    for line in lines:
        assert line.quantity in {*DIRECT, *AGAINST, *MEANS}, line
        assert bool(line.benchmark) is (line.quantity not in MEANS), line
        assert line.value or line.note, line
        assert line.number is None or -300 <= line.number <= 15000, line
        assert 0 < line.ratio <= 1, line
        assert (line.method == "none") is (line.ratio == 1), line
    keys = [(line.place, line.settings, line.benchmark, line.column, line.quantity) for line in lines]
    assert len(set(keys)) == len(keys)


def test_tables_without_numbers_that_follow_from_others_are_these() -> None:
    assert {name for name in NAMES if not list(computed(read_table(name)))} == UNRELATED


@pytest.mark.parametrize("name", sorted({*NAMES} - UNRELATED))
def test_what_follows_from_other_numbers_agrees_or_is_an_erratum(name: str) -> None:
    table = read_table(name)
    for line, low, high in computed(table):
        margin = half(line.value) + slack(line) + 1e-9
        agrees = low - margin <= float(line.value) <= high + margin
        if line.erratum.startswith("suspect"):
            continue
        assert agrees is (not line.erratum), (line, low, high)


def test_the_known_contradictions_are_all_there_and_only_they() -> None:
    wrong = {
        (name, line.row, line.ratio, line.value)
        for name in NAMES
        for line in read_table(name).lines
        if line.quantity in MEANS and line.erratum
    }
    assert wrong == {
        ("uniprunebench-table1", "Random", 0.333, "52.3"),
        ("uniprunebench-table1", "Random", 0.222, "50.4"),
        ("uniprunebench-table1", "Random", 0.111, "42.6"),
        ("uniprunebench-table2", "Vanilla", 1, "70.02"),
        ("uniprunebench-table2", "Random-Pre", 0.222, "62.91"),
        ("uniprunebench-table2", "Random-Intra", 0.111, "60.73"),
        ("uniprunebench-table5", "Vanilla", 1, "70.02"),
        ("fopru-table4", "LLaVA-1.6-13B rank", 0.5, "60.06"),
    }


def test_a_misread_number_would_be_found() -> None:
    table = read_table("uniprunebench-table3")
    line = next(line for line in table.lines if line.quantity == "score" and not line.erratum)
    misread = line.model_copy(update={"value": str(float(line.value) + 3)})
    changed = PaperTable(table.name, table.path, table.sweep, tuple(misread if x == line else x for x in table.lines))
    assert any(
        not low - 0.06 <= float(one.value) <= high + 0.06 for one, low, high in computed(changed) if not one.erratum
    )


def test_swapped_headings_fit_the_benchmark_they_are_joined_with() -> None:
    """Scores of n questions are k/n: the heading says one benchmark, the numbers the other."""
    sizes = {"mathvista": 1000, "mathvision-mini": 304}
    for name in ("uniprunebench-table2", "uniprunebench-table6"):
        for line in read_table(name).lines:
            if line.quantity == "score" and line.benchmark in sizes:
                questions = sizes[line.benchmark]
                nearest = round(float(line.value) * questions / 100)
                assert abs(100 * nearest / questions - float(line.value)) <= 0.0051, line
                assert line.erratum.startswith("heading swapped")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("uniprunebench-table2", "uniprunebench-table5"),
        ("zspaprune-table1", "zspaprune-table5"),
        ("zspaprune-table5", "zspaprune-table6"),
        ("zspaprune-table1", "zspaprune-table4"),
        ("fopru-table4", "fopru-table3"),
    ],
)
def test_tables_that_print_the_same_runs_agree_or_say_so(one: str, other: str) -> None:
    def scores(name: str) -> dict[tuple[object, ...], Printed]:
        return {
            (line.model, line.method, line.settings.replace(" pooling=mean", ""), line.ratio, line.benchmark): line
            for line in read_table(name).lines
            if line.quantity == "score" and line.value
        }

    first, second = scores(one), scores(other)
    shared = first.keys() & second.keys()
    assert len(shared) >= 4
    for key in shared:
        assert first[key].value == second[key].value or "prints" in second[key].erratum, (first[key], second[key])


def test_fopru_prints_the_better_of_its_strategies() -> None:
    strategies = [line for line in read_table("fopru-table4").lines if line.quantity == "score"]
    for line in read_table("fopru-table1").lines:
        if line.quantity == "score":
            of = [x for x in strategies if (x.model, x.ratio, x.benchmark) == (line.model, line.ratio, line.benchmark)]
            assert float(line.value) == max(float(x.value) for x in of), line
