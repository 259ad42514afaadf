"""`python run.py run`: evaluate every method at every ratio on every benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict
from rich.console import Console

from uniprune.cli.backend_options import backend_arguments, chosen_backend
from uniprune.errors import Failure
from uniprune.evaluation.config import RunSpec
from uniprune.evaluation.method_spec import MethodSpec, parse_settings
from uniprune.results.store import Store
from uniprune.utils.console import say, write
from uniprune.utils.paths import ROOT
from uniprune.utils.yaml_file import read_model

if TYPE_CHECKING:  # importing it imports torch
    from uniprune.evaluation.plan import PlannedRun, RunSettings

HELP = "evaluate methods on benchmarks"
DEFAULTS = ROOT / "configs" / "default.yaml"


class Defaults(BaseModel):
    """configs/default.yaml."""

    model_config = ConfigDict(extra="forbid")

    model: str
    """As `--model`."""
    method: list[str]
    """As `--method`."""
    ratio: list[float]
    """As `--ratio`."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `run`."""
    parser.set_defaults(resumes=True)
    what = parser.add_argument_group("what to run")
    what.add_argument("--model", help="name in configs/models.yaml, hub id or folder")
    what.add_argument(
        "--like", metavar="NAME", help="take prompts, images and suite of this entry of configs/models.yaml"
    )
    what.add_argument(
        "--method", nargs="+", metavar="NAME", help="one or more; a+b prunes with a, then the remaining tokens with b"
    )
    what.add_argument("--ratio", nargs="+", type=float, help="share of visual tokens to keep, in (0, 1]")
    what.add_argument("--data", nargs="+", metavar="NAME", help="benchmarks; * is a wildcard")
    what.add_argument("--suite", help="all benchmarks of a suite (default: mini for the tiny models, ten otherwise)")
    what.add_argument("--limit", type=int, metavar="N", help="only the first N rows of each benchmark")
    how = parser.add_argument_group("how to prune")
    how.add_argument("--layer", type=int, help="decoder layer before which methods inside the model prune")
    how.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="method fields")
    how.add_argument(
        "--seed",
        nargs="+",
        type=int,
        default=[0],
        metavar="N",
        help="seeds of random choices; methods with any run once per seed, averaged on the leaderboard",
    )
    how.add_argument(
        "--protocol",
        choices=("site", "average"),
        default="site",
        help="the ratio holds at the pruning layer, or over all",
    )
    how.add_argument(
        "--question",
        choices=("seen", "hidden"),
        default="seen",
        help="methods decide with the whole prompt, or before the question is known: images come first, as where "
        "prefixes are cached, and methods that look at the question are refused",
    )
    machine_arguments(parser)


def machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that `run` and `sweep` share: machine, prompts, files and judges."""
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, or balanced over all GPUs")
    machine.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16")
    machine.add_argument(
        "--attn", default="auto", help="attention kernel: auto, sdpa, eager, varlen (towers), flash_attention_2"
    )
    machine.add_argument("--batch-size", type=int, default=8, metavar="N", help="rows per batch (default: 8)")
    machine.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="longest prediction (default: the benchmark's)"
    )
    machine.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that prepare rows ahead of the model"
    )
    machine.add_argument(
        "--share-vision",
        type=float,
        default=0,
        metavar="GB",
        help="compute image features once for all methods and questions, caching up to this much; no times are stored",
    )
    machine.add_argument(
        "--share-prefix",
        action="store_true",
        help="prefill and prune images once for all questions about them, where rows begin alike; no times are stored",
    )
    backend_arguments(parser)
    files = parser.add_argument_group("prompts, files and judges")
    files.add_argument(
        "--prompts",
        choices=("benchmark", "family"),
        help="wording of the prompts: the benchmark's, or that of VLMEvalKit for the model's family (default: see "
        "configs/models.yaml)",
    )
    files.add_argument(
        "--images",
        choices=("paper", "checkpoint"),
        help="image processing: that of the papers' harness (tiles, pixel limits, padding), or the checkpoint's own "
        "(default: see configs/models.yaml)",
    )
    files.add_argument("--output", type=Path, default=Path("results"), metavar="DIR", help="folder of the runs")
    files.add_argument(
        "--keep-selections",
        action="store_true",
        help="store with every answer which tokens were kept, and where they are in the picture, for `show --stored`",
    )
    files.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="folder of the benchmarks' files"
    )
    files.add_argument("--judge", help="'rule', or the URL of an OpenAI-compatible endpoint (mini suite: rule)")
    files.add_argument("--judge-model", metavar="NAME", help="model at that endpoint")
    image_arguments(parser)


def image_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that `run`, `sweep` and `calibrate` share: images and videos."""
    images = parser.add_argument_group("images and videos")
    images.add_argument(
        "--image-decoding",
        choices=("kit", "viewer"),
        default="kit",
        help="images as VLMEvalKit converts them (default), or as a viewer shows them: EXIF orientation, 16 bits, "
        "transparency on white",
    )
    images.add_argument("--frames", type=int, metavar="N", help="frames shown of every video (default: 8)")
    images.add_argument("--fps", type=float, metavar="F", help="frames shown per second of video, instead of --frames")


def act(options: argparse.Namespace) -> int:
    """Evaluate every method at every ratio on every benchmark."""
    from uniprune.evaluation.distributed import ProcessGroup
    from uniprune.evaluation.sweep import Sweep
    from uniprune.utils.console import RunProgress

    fill_in(options)
    data = tuple(options.data) if options.data is not None else None
    cells = [
        RunSpec(
            options.model, choice, data, options.suite, options.protocol, options.limit, options.like, options.question
        )
        for choice in method_choices(options)
    ]
    with ProcessGroup.join() as team:
        sweep = Sweep(run_settings(options), team)
        items = sweep.plan(cells)
        failures = [(item, item.failure) for item in items if item.failure]
        planned = not failures
        if planned:
            open_ = [item for item in items if not item.done]
            with RunProgress(rows_of(open_), Console(stderr=True, quiet=not team.main)) as progress:
                for item in items:
                    if item.done:
                        progress.say(f"{item.label}: answers were stored  ({sweep.store.root / str(item.identity)})")
                outcomes = sweep.execute(open_, progress)
            failures = [(outcome.item, outcome.failure) for outcome in outcomes if outcome.failure]
        with team.step():  # a launcher ends all processes once one has failed
            if team.main and planned:
                show_results(sweep.store, items)
            if team.main:
                print_failures(failures, len(items), options.debug)
    return (2 if all(failure.user for _, failure in failures) else 1) if failures else 0


def run_settings(options: argparse.Namespace) -> RunSettings:
    """Return the options of `machine_arguments` as one object."""
    from uniprune.evaluation.frame_sampling import FrameSampling
    from uniprune.evaluation.plan import RunSettings

    return RunSettings(
        output=options.output,
        data_dir=options.data_dir,
        device=options.device,
        dtype=options.dtype,
        attention=options.attn,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        workers=options.workers,
        share_vision=options.share_vision,
        share_prefix=options.share_prefix,
        keep_selections=options.keep_selections,
        prompts=options.prompts,
        image_decoding=options.image_decoding,
        sampling=FrameSampling.of(options.frames, options.fps),
        images=options.images,
        judge=options.judge,
        judge_model=options.judge_model,
        backend=chosen_backend(options),
    )


def rows_of(items: Sequence[PlannedRun]) -> int:
    """Count the rows of all runs, stored ones included."""
    return sum(rows or 0 for item in items for rows in item.rows.values())


def show_results(store: Store, items: Sequence[PlannedRun]) -> None:
    """Print the leaderboard rows of these runs, write the leaderboard of all runs, print the paths."""
    from uniprune.cli.terminal_table import USUAL, show
    from uniprune.results.backends import agreements
    from uniprune.results.fidelity import FidelityCache
    from uniprune.results.leaderboard import leaderboard
    from uniprune.results.selection import Selection

    mine = {item.identity for item in items}
    doubts: list[str] = []
    records = store.read_all(doubts.append)
    if not any(record.identity in mine for record in records):
        for doubt in doubts:
            say(doubt)
        return
    board = leaderboard(records, FidelityCache(store, doubts.append), doubts)
    show(Selection().table(board.only(mine), [*USUAL, *board.benchmarks]))
    for agreement in agreements(store, records, filter(None, mine)):
        say(str(agreement))
    path = store.root / "leaderboard.csv"
    write(path, board.csv())
    say(f"leaderboard of all runs: {path}")
    say(f"records and predictions: {store.root}/<identity>/")


def print_failures(failures: Sequence[tuple[PlannedRun, Failure]], runs: int, debug: bool) -> None:
    """Print each reason once to stderr, with the runs it concerns unless it concerns all `runs` of the command."""
    reasons: dict[str, tuple[Failure, list[str]]] = {}
    for item, failure in failures:
        reasons.setdefault(failure.message, (failure, []))[1].append(item.label)
    for failure, labels in reasons.values():
        names = ", ".join(labels[:3]) + f" and {len(labels) - 3} more" * (len(labels) > 3)
        concerned = "" if len(labels) == runs else f"{names}: "
        sys.stderr.write(failure.trace * debug + f"error: {concerned}{failure.message}\n")


def fill_in(options: argparse.Namespace, path: Path = DEFAULTS) -> None:
    """Set the options that were left out to the values of configs/default.yaml."""
    for name, value in read_model(path, Defaults):
        if getattr(options, name) is None:
            setattr(options, name, value)


def method_choices(options: argparse.Namespace) -> list[MethodSpec]:
    """Return every method at every ratio and seed, normalised and checked, each once.

    Of several methods, `--layer` and `--set` apply to those that have the field; one that no method has is refused.

    Raises:
        UserError: an unknown method or field, or a value that a method refuses.
    """
    settings = parse_settings(options.set)
    methods = [MethodSpec(name) for name in dict.fromkeys(options.method)]
    inside = [method.name for method in methods if method.prunes_inside] or [method.name for method in methods]
    unused = {key for key in settings if not any(method.has(key) for method in methods)}
    specs: dict[tuple[Any, ...], MethodSpec] = {}
    for method in methods:
        layer = options.layer if method.name in inside else None
        own = {key: text for key, text in settings.items() if method.has(key) or key in unused}
        for ratio, seed in product(options.ratio, options.seed):
            spec = MethodSpec(method.name, ratio, layer, seed, own).normalised()
            specs.setdefault((spec.name, spec.ratio, spec.seed, *sorted(spec.settings.items())), spec).pruner()
    return list(specs.values())
