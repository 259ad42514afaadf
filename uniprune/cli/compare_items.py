"""`compare A B`: two runs, or the runs of two folders, item by item."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uniprune.cli.folders import folders_of
from uniprune.utils.console import say, write
from uniprune.utils.paths import PROGRAM
from uniprune.utils.terminal import columns, say_wrapped, show_table

if TYPE_CHECKING:
    from uniprune.reports.item_pairs import BenchmarkPair, ItemPair, StoredRun

SHOWN = ("differ", "a-right", "b-right", "both-wrong", "answers", "all")
COLUMNS = (
    *("A", "B", "benchmark", "item", "row", "question", "expected", "answer A", "answer B", "credit A", "credit B"),
)
"""Columns of the file of `--csv`."""


def item_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `compare A B`."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="two runs or two folders of runs to compare item by item: a folder, an identity, a method or METHOD@RATIO",
    )
    items = parser.add_argument_group("compare A B")
    items.add_argument(
        "--show",
        choices=SHOWN,
        help="items to print: of other credits (default), A better, B better, no credit for both, other answers, all",
    )
    items.add_argument("--lines", type=int, default=10, metavar="N", help="items printed per benchmark (default: 10)")
    items.add_argument("--data", nargs="+", metavar="NAME", help="only these benchmarks")
    items.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="folder of the benchmarks' files"
    )
    items.add_argument("--pictures", type=Path, metavar="DIR", help="write the images of the printed items there")


def compare_items(options: argparse.Namespace) -> int:
    """Print every pair of runs: their tests, then the items that differ; write all of them as CSV on request."""
    from uniprune.reports.item_pairs import FILTERS, compare_runs, setup_differences
    from uniprune.reports.run_pairs import find_side, paired_runs
    from uniprune.utils.setup import prepare
    from uniprune.utils.tables import to_csv

    folders, doubts = folders_of(options), list[str]()
    sides = [find_side(word, folders, doubts) for word in options.runs]
    pairs, notes = paired_runs(*sides)
    prepare([], options.debug)  # benchmarks are read with the kit, which imports torch
    lines: list[Sequence[object]] = []
    for first, second in pairs:
        found, more = compare_runs(first, second, options.data, options.data_dir)
        say(f"A: {first.label}")
        say(f"B: {second.label}")
        for difference in setup_differences(first.record, second.record):
            say_wrapped(f"differ in {difference}")
        if found:
            _show_tests(found)
        chosen = FILTERS[options.show or "differ"]
        for one in found:
            items = [item for item in one.items if chosen(item)]
            if items and (len(pairs) == 1 or options.show):
                _show_items(items, options)
                say_wrapped(f"kept tokens: {_drawing(first, second, items[0], options.data_dir)}")
            written = items if options.show else one.items
            lines += [line for item in written for line in _lines(first, second, item)]
        for note in dict.fromkeys(more):
            say_wrapped(note)
        say("")
    for note in (*notes, *dict.fromkeys(doubts)):
        say_wrapped(note)
    if options.csv is not None:
        write(options.csv, to_csv(COLUMNS, [tuple(line) for line in lines]))
        say(f"written: {options.csv}")
    return 0


def _show_tests(found: Sequence[BenchmarkPair]) -> None:
    """Print one line per benchmark: scores, paired test, numbers of items."""
    from uniprune.results.statistics import holm

    tested = [one for one in found if one.test is not None]
    corrected = dict(zip((one.name for one in tested), holm([one.test.p for one in tested if one.test]), strict=True))
    heads = columns(
        "benchmark",
        right=("A", "B", "A - B", "95 %", "p", "items", "A better", "B better", "both wrong", "answers differ"),
    )
    rows = []
    for one in found:
        test = one.test
        a, b = one.scores
        rows.append(
            (
                *(one.name, f"{a:.1f}", f"{b:.1f}", f"{a - b:+.1f}"),
                f"[{test.low:+.1f}, {test.high:+.1f}]" if test else "–",
                f"{corrected[one.name]:.3g}" if test else "–",
                str(len(one.items)),
                *(str(one.count(name)) for name in ("a-right", "b-right", "both-wrong", "answers")),
            )
        )
    show_table(heads, rows)
    if tested:
        say_wrapped("95 %: interval of the paired difference; p: of no difference, Holm-corrected over the benchmarks.")
    for one in found:
        if one.remark:
            say_wrapped(f"{one.name}: {one.remark}")
        if one.rows[0] != one.rows[1]:
            say_wrapped(f"{one.name}: A is scored on {one.rows[0]} rows, B on {one.rows[1]}")


def _show_items(items: Sequence[ItemPair], options: argparse.Namespace) -> None:
    """Print the first items of a benchmark: question, expected answer, both answers and credits."""
    for item in items[: options.lines]:
        say("")
        say(f"{item.benchmark} {item.item}: A {item.first:.3g}, B {item.second:.3g}")
        for row in item.rows:
            texts = {"question": row.question, "expected": row.expected, "A": row.first, "B": row.second}
            if len(item.rows) > 1:
                texts = {"row": row.index, **texts}
            for name, text in texts.items():
                if text != "":
                    say_wrapped(f"{name}: {'(no answer)' if text is None else ' '.join(text.split())}", indent="  ")
            for path in _write_pictures(item, row.index, options.pictures):
                say_wrapped(f"picture: {path}", indent="  ")
    if (left := len(items) - options.lines) > 0:
        say(f"… and {left} more items of {items[0].benchmark} (--lines)")


def _drawing(first: StoredRun, second: StoredRun, item: ItemPair, data_dir: Path) -> str:
    """Return the command that draws what both methods keep of an item's image."""
    setups = [one.record.setup for one in (first, second)]
    methods = dict.fromkeys(
        setup.method.name + f"[{','.join(f'{k}={v}' for k, v in fields.items())}]" * bool(fields)
        for setup in setups
        if (fields := setup.method.passed) is not None and setup.method.kind != "none"
    )
    ratios = dict.fromkeys(f"{setup.ratio:g}" for setup in setups if setup.method.kind != "none")
    words = [PROGRAM, "show", f"{item.benchmark}:{item.rows[0].index}", "--model", first.record.model.name]
    words += ["--method", *methods, "--ratio", *ratios] if methods else []
    return shlex.join([*words, "--data-dir", str(data_dir)]).replace(shlex.quote(PROGRAM), PROGRAM)


def _write_pictures(item: ItemPair, index: str, folder: Path | None) -> Iterator[Path]:
    """Write the images of a row, if a folder is given and the benchmark's file is at hand; yield their paths."""
    from uniprune.utils.files import explain_write

    request = next(row.request for row in item.rows if row.index == index)
    if folder is None or request is None:
        return
    images = [part.image for part in request.load() if part.image is not None]
    for number, image in enumerate(images):
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in index)
        path = folder / f"{item.benchmark}-{name}{f'-{number}' * (len(images) > 1)}.png"
        with explain_write(path):
            folder.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").save(path)
        yield path


def _lines(first: StoredRun, second: StoredRun, item: ItemPair) -> Iterator[Sequence[object]]:
    """Yield the CSV lines of an item, one per row."""
    ids = first.record.identity, second.record.identity
    for row in item.rows:
        texts = (row.question, row.expected, row.first, row.second)
        yield (*ids, item.benchmark, item.item, row.index, *texts, item.first, item.second)
