"""Every paper's sweep names what exists, and runs what its table prints."""

from __future__ import annotations

import pytest

from tests.helpers.paper_tables import tables
from uniprune.modeling.catalog import catalog
from uniprune.registry import BENCHMARKS
from uniprune.reports.papers.cost import read_assumptions
from uniprune.reports.papers.mini import read_stand_ins
from uniprune.reports.papers.runs import fields
from uniprune.reports.papers.tables import read_table, table_names

pytestmark = pytest.mark.end_to_end


@tables
def test_models_methods_and_benchmarks_exist(name: str) -> None:
    cells = read_table(name).sweep.cells()
    assert {cell.model for cell in cells} <= catalog().keys()
    assert {data for cell in cells for data in cell.data or ()} <= set(BENCHMARKS.names())
    for cell in cells:
        cell.choice.pruner()


@pytest.mark.parametrize("name", table_names())
def test_every_printed_number_of_a_method_we_have_is_run(name: str) -> None:
    table = read_table(name)
    run = [
        ((c.model, c.choice.name, c.choice.ratio, fields(c.choice), "" if c.choice.unpruned else c.protocol), c.data)
        for c in table.sweep.cells()
    ]
    without = set()
    for line in table.lines:
        if not line.method:
            without.add(line.row)
        elif line.benchmark:
            choice = line.choice()
            protocol = "" if choice.unpruned else line.protocol
            wanted = (line.model, choice.name, line.ratio, fields(choice), protocol)
            assert any(key == wanted and line.benchmark in (data or ()) for key, data in run), line
    assert table.sweep.printed or without <= {"Folder"}


@tables
def test_random_choices_have_five_seeds_and_nothing_else_has(name: str) -> None:
    seeds: dict[tuple[object, ...], set[int]] = {}
    for cell in read_table(name).sweep.cells():
        key = (cell.model, cell.choice.name, cell.choice.ratio, str(cell.choice.settings), cell.data)
        seeds.setdefault(key, set()).add(cell.choice.seed)
    for key, chosen in seeds.items():
        assert chosen == ({0, 1, 2, 3, 4} if "random" in str(key[1]) else {0}), key


@tables
def test_stand_ins_are_embedded_and_sizes_are_known(name: str) -> None:
    table = read_table(name)
    mini = read_stand_ins().sweep(table.sweep)
    assert all(catalog()[cell.model].suite == "mini" for cell in mini.cells())
    assert all(
        BENCHMARKS.entry(data).metadata["suite"].startswith("mini") for cell in mini.cells() for data in cell.data or ()
    )
    methods = {cell.choice.name for cell in table.sweep.cells()}
    assert {cell.choice.name for cell in mini.cells()} == methods
    assert {cell.model for cell in table.sweep.cells()} <= read_assumptions().billions.keys()
    assert read_assumptions().long_answers.keys() <= set(BENCHMARKS.names())
