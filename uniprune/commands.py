"""What each command does."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from uniprune.benchmark import DataOptions, Dataset
from uniprune.cards import cards, needs
from uniprune.catalog import ROOT, ModelEntry, catalog, find_model
from uniprune.choice import MethodChoice, parse_settings, settable
from uniprune.errors import UserError, unknown
from uniprune.leaderboard import Leaderboard, leaderboard
from uniprune.pruner import Pruner
from uniprune.records import Store, explain_write, write_atomically
from uniprune.registry import BENCHMARKS, METHODS, MODELS, load_plugin
from uniprune.torchvision_remedy import ensure_torchvision

DEFAULTS = ROOT / "configs" / "default.yaml"


def prepare(plugins: Sequence[str], debug: bool) -> None:
    """Make torchvision importable, silence libraries, import the user's files."""
    ensure_torchvision()
    if not debug:
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
    for plugin in plugins:
        load_plugin(plugin)


def run(options: argparse.Namespace) -> int:
    """Evaluate every method at every ratio on every benchmark."""
    from uniprune.evaluate import Run, RunOptions
    from uniprune.loading import load, place
    from uniprune.progress import RunProgress

    console = Console(stderr=True)
    fill_in(options)
    entry = find_model(options.model)
    choices = method_choices(options)
    settings = RunOptions(options.protocol, options.limit, options.batch_size, options.max_new_tokens)
    placement = place(options.dtype, options.attn, options.device)
    datasets = load_datasets(options, entry)
    loaded = load(entry, placement)
    runs = [Run(loaded, choice, settings) for choice in choices]
    store = Store(options.output)
    rows = sum(len(dataset.requests(options.limit)) for dataset in datasets)
    with RunProgress(rows * len(runs), console) as progress:
        progress.say(f"{entry.name} ({placement}), {rows} rows per method")
        for one in runs:
            progress.say(f"{one.label}  ({store.root / one.record.identity})")
            one.evaluate(datasets, store, progress)
    mine = {one.record.identity for one in runs}
    records = list(store.records())
    show(leaderboard(records, lambda record: record.identity in mine))
    board = store.root / "leaderboard.csv"
    write(board, leaderboard(records).csv())
    say(f"leaderboard of all runs: {board}")
    say(f"records and predictions: {store.root}/<identity>/")
    return 0


def fill_in(options: argparse.Namespace, path: Path = DEFAULTS) -> None:
    """Give the options that were left out the values of configs/default.yaml."""
    for name, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def method_choices(options: argparse.Namespace) -> list[MethodChoice]:
    """Every method at every ratio, checked; the un-pruned model once.

    Of several methods, `--layer` and `--set` reach those they concern; one that concerns none of them is refused.
    """
    settings = parse_settings(options.set)
    names = [MethodChoice(name) for name in dict.fromkeys(options.method)]
    inside = [one.name for one in names if one.prunes_inside()] or [one.name for one in names]
    lost = {key for key in settings if not any(one.has(key) for one in names)}
    choices: dict[tuple[str, float], MethodChoice] = {}
    for one in names:
        for ratio in options.ratio:
            choice = dataclasses.replace(
                one,
                ratio=ratio,
                layer=options.layer if one.name in inside else None,
                seed=options.seed,
                settings={key: text for key, text in settings.items() if one.has(key) or key in lost},
            )
            pruner = choice.pruner()
            choice = dataclasses.replace(choice, ratio=pruner.ratio) if pruner.kind == "none" else choice
            choices[choice.name, choice.ratio] = choice
    return list(choices.values())


def load_datasets(options: argparse.Namespace, entry: ModelEntry) -> list[Dataset]:
    """The chosen benchmarks. Those of the mini suite are judged by rule unless told otherwise."""
    names = dataset_names(options.data, options.suite or entry.suite)
    embedded = all(BENCHMARKS.entry(name).metadata.get("suite") == "mini" for name in names)
    judge = options.judge or ("rule" if embedded else None)
    settings = DataOptions(data_dir=options.data_dir, judge=judge, judge_model=options.judge_model)
    return [BENCHMARKS.get(name)(settings) for name in names]


def dataset_names(patterns: Sequence[str] | None, suite: str) -> list[str]:
    """Names that `--data` or `--suite` mean. Raises UserError for one that means nothing."""
    if patterns is None:
        suites = {name: BENCHMARKS.entry(name).metadata.get("suite", "") for name in BENCHMARKS.names()}
        if suite not in suites.values():
            raise unknown("suite", suite, {s for s in suites.values() if s})
        return [name for name, of in suites.items() if of == suite]
    names: dict[str, None] = {}
    for pattern in patterns:
        matching = BENCHMARKS.names(pattern) or [BENCHMARKS.entry(pattern).name]
        names.update(dict.fromkeys(matching))
    return list(names)


def list_names(options: argparse.Namespace) -> int:
    """Print what is registered."""
    rows = LISTINGS[options.what](options.pattern)
    if not rows:
        raise UserError(f"no {options.what} match {options.pattern!r}")
    if options.json:
        say(json.dumps(rows, indent=1))
        return 0
    table = Table(*rows[0], box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    _console().print(table)
    return 0


def list_methods(pattern: str) -> list[dict[str, Any]]:
    """Registered methods: where they act, what they need, their paper and their fields."""
    rows = []
    for name in METHODS.names(pattern):
        entry = METHODS.entry(name)
        method: type[Pruner] = entry.target
        defaults = {field.name: field.default for field in dataclasses.fields(method)}
        rows.append(
            {
                "method": name,
                "kind": method.kind,
                "layer": defaults["layer"],
                "needs": needs(method),
                "paper": entry.metadata.get("paper", ""),
                "idea": entry.summary,
                "fields": {field: str(defaults[field]) for field in settable(method) if field != "layer"},
            }
        )
    return rows


def list_models(pattern: str) -> list[dict[str, Any]]:
    """Names of configs/models.yaml and the families that are supported."""
    from fnmatch import fnmatch

    named = [e for e in catalog().values() if fnmatch(e.name, pattern)]
    rows = [{"model": e.name, "source": e.source, "suite": e.suite, "idea": "configs/models.yaml"} for e in named]
    for name in MODELS.names(pattern):
        rows.append(
            {
                "model": f"family {name}",
                "source": "any folder or hub id",
                "suite": "",
                "idea": MODELS.entry(name).summary,
            }
        )
    return rows


def list_benchmarks(pattern: str) -> list[dict[str, Any]]:
    """Registered benchmarks."""
    rows = []
    for name in BENCHMARKS.names(pattern):
        entry = BENCHMARKS.entry(name)
        told = {key: entry.metadata.get(key, "") for key in ("suite", "ability", "metric", "judge")}
        rows.append({"benchmark": name, **told, "idea": entry.summary})
    return rows


def show_leaderboard(options: argparse.Namespace) -> int:
    """Print the leaderboard of all stored runs and write it where asked."""
    records = list(Store(options.output).records())
    if not records:
        raise UserError(
            f"no run is stored in {str(options.output)!r}; `python run.py` makes some, --output names their folder"
        )
    board = leaderboard(records)
    show(board)
    for path, content in ((options.csv, board.csv), (options.md, board.markdown), (options.html, board.html)):
        if path is not None:
            write(path, content())
            say(f"written: {path}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Make all conformance checks of one method, or of the methods a file registers."""
    from uniprune.conformance.command import check as check_methods

    return check_methods(options)


def show_cards(options: argparse.Namespace) -> int:
    """Print a card per registered method."""
    say(cards().rstrip("\n"))
    return 0


def show(board: Leaderboard) -> None:
    """Print a leaderboard; on its side where the terminal is too narrow for it."""
    console = _console()
    texts = board.texts()
    # A column in which every row says the same tells nothing here; files keep them all.
    same = {"seed", "settings", "protocol", "layer", "judge"}
    keep = [i for i, column in enumerate(board.columns) if column not in same or len({line[i] for line in texts}) > 1]
    lines = [[line[i] for i in keep] for line in ([*board.columns], *texts)]
    width = sum(max(map(len, column)) + 2 for column in zip(*lines, strict=True))
    lines, left = (lines, 2) if width <= console.width else ([list(c) for c in zip(*lines, strict=True)], 1)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, column in enumerate(lines[0]):
        table.add_column(column, justify="left" if i < left else "right")
    for line in lines[1:]:
        table.add_row(*line)
    console.print(table)
    for note in board.notes:
        console.print(note, highlight=False, markup=False)


def write(path: Path, content: str) -> None:
    """Write a whole file. Raises UserError when that is not possible."""
    with explain_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def say(line: str) -> None:
    """One line of results: those go to stdout, everything else to stderr."""
    sys.stdout.write(line + "\n")


def _console() -> Console:
    """Standard output; wide enough for tables when it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 240)


def _cell(value: object) -> str:
    """A listing's value as text."""
    match value:
        case bool():
            return "yes" if value else ""
        case Mapping():
            return " ".join(f"{key}={item}" for key, item in value.items())
        case str():
            return value
        case Iterable():
            return ", ".join(map(str, value))
    return str(value)


LISTINGS = {"methods": list_methods, "models": list_models, "benchmarks": list_benchmarks}
ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": run,
    "list": list_names,
    "leaderboard": show_leaderboard,
    "check": check,
    "cards": show_cards,
}
