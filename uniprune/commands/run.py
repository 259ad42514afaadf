"""`python run.py run`: evaluate every method at every ratio on every benchmark."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console

from uniprune.benchmark import DataOptions, Dataset, download_command
from uniprune.catalog import ROOT, ModelEntry, find_model
from uniprune.choice import MethodChoice, parse_settings
from uniprune.console import say, show, write
from uniprune.errors import UserError, unknown
from uniprune.leaderboard import leaderboard
from uniprune.records import Store
from uniprune.registry import BENCHMARKS

HELP = "evaluate methods on benchmarks"
DEFAULTS = ROOT / "configs" / "default.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `run`."""
    what = parser.add_argument_group("what to run")
    what.add_argument("--model", help="name in configs/models.yaml, hub id or folder")
    what.add_argument(
        "--method", nargs="+", metavar="NAME", help="one or more; a+b prunes with a, then with b the tokens a left"
    )
    what.add_argument("--ratio", nargs="+", type=float, help="share of visual tokens to keep, in (0, 1]")
    what.add_argument("--data", nargs="+", metavar="NAME", help="benchmarks; * matches")
    what.add_argument("--suite", help="all benchmarks of a suite (default: mini for the tiny models, ten otherwise)")
    what.add_argument(
        "--prompts",
        choices=("benchmark", "family"),
        help="who words the prompts: the benchmark, or the model's family as VLMEvalKit does (default: see "
        "configs/models.yaml)",
    )
    what.add_argument("--limit", type=int, metavar="N", help="only the first N rows of each benchmark")
    how = parser.add_argument_group("how to prune")
    how.add_argument("--layer", type=int, help="decoder layer before which methods inside the model prune")
    how.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="method fields")
    how.add_argument("--seed", type=int, default=0, help="seed of random choices")
    how.add_argument(
        "--protocol", choices=("site", "average"), default="site", help="the ratio holds at the layer / over all layers"
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, or balanced over all GPUs")
    machine.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16")
    machine.add_argument("--attn", default="auto", help="attention kernel: auto, sdpa, eager, flash_attention_2")
    machine.add_argument("--batch-size", type=int, default=8, metavar="N", help="rows answered together (default: 8)")
    machine.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer (default: the benchmark's)")
    machine.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that prepare rows ahead of the model"
    )
    machine.add_argument(
        "--share-vision",
        type=float,
        default=0,
        metavar="GB",
        help="compute image features once for all methods and questions, keeping up to this much; times are not taken",
    )
    files = parser.add_argument_group("files and judges")
    files.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs")
    files.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="folder of the benchmarks' files"
    )
    files.add_argument("--judge", help="'rule', or the URL of an OpenAI-compatible endpoint (mini suite: rule)")
    files.add_argument("--judge-model", metavar="NAME", help="model at that endpoint")


def act(options: argparse.Namespace) -> int:
    """Evaluate every method at every ratio on every benchmark."""
    from uniprune.evaluate import Run, RunOptions
    from uniprune.loading import load, place
    from uniprune.progress import RunProgress
    from uniprune.sharing import sharing

    console = Console(stderr=True)
    fill_in(options)
    entry = find_model(options.model)
    choices = method_choices(options)
    settings = RunOptions(
        protocol=options.protocol,
        limit=options.limit,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        workers=options.workers,
        prompts=options.prompts or entry.prompts,
    )
    placement = place(options.dtype, options.attn, options.device)
    datasets = load_datasets(options, entry)
    loaded = load(entry, placement)
    runs = [Run(loaded, choice, settings) for choice in choices]
    store = Store(options.output)
    shared = sharing(loaded, options.share_vision)
    rows = sum(len(dataset.requests(options.limit)) for dataset in datasets)
    with RunProgress(rows * len(runs), console) as progress:
        progress.say(f"{entry.name} ({placement}), {rows} rows per method")
        for one in runs:
            progress.say(f"{one.label}  ({store.root / one.record.identity})")
            one.evaluate(datasets, store, progress, shared)
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
    sources = {name: BENCHMARKS.entry(name).metadata.get("source") for name in names}
    absent = [name for name, source in sources.items() if source and not source.path(options.data_dir).is_file()]
    if len(absent) > 1:
        raise UserError(
            f"{options.data_dir} lacks the files of {', '.join(absent)}; run: "
            f"{download_command(absent, options.data_dir)}"
        )
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
