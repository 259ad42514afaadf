"""The papers' tables as test parameters: those with numbers of their own and a few others, the rest in `test-all`."""

from __future__ import annotations

import pytest

from uniprune.reports.papers.tables import TABLES, table_names

TRANSCRIBED = sorted(path.stem for path in TABLES.glob("*.csv"))
"""Tables with a file of numbers of their own."""
PRINTED = sorted({*table_names()} - {*TRANSCRIBED})
"""Tables whose numbers are in configs/printed/."""
SAMPLE = ("holov-table1", "v2drop-table4", "vtc-bench-table1")

RARE = {*PRINTED} - {*SAMPLE}

tables = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.exhaustive] * (name in RARE)) for name in table_names()],
)
"""All tables; most of those in configs/printed/ in `make test-all` only."""
