"""`python run.py bench`: latency, memory and FLOPs of prompts, with and without pruning."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from uniprune.cli.run import fill_in, method_choices
from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.utils.console import say, write
from uniprune.utils.files import check_writable
from uniprune.utils.terminal import say_wrapped

HELP = "latency, memory and FLOPs on random prompts, with or without a checkpoint"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `bench`."""
    parser.set_defaults(resumes=True)
    what = parser.add_argument_group("models, methods and prompts")
    what.add_argument("--model", nargs="+", metavar="NAME", help="one or more, as for run")
    what.add_argument(
        "--random-weights",
        action="store_true",
        help="build the models from their dimensions (configs/architectures.yaml, or a folder's config.json)",
    )
    what.add_argument("--method", nargs="+", metavar="NAME", help="one or more; the un-pruned model is always timed")
    what.add_argument("--ratio", nargs="+", type=float, help="share of visual tokens to keep, in (0, 1]")
    what.add_argument("--batch", nargs="+", type=int, default=[1], metavar="N", help="prompts per call (default: 1)")
    what.add_argument(
        "--tokens", nargs="+", type=int, metavar="N", help="visual tokens per prompt (default: one image's)"
    )
    what.add_argument("--text-tokens", type=int, default=60, metavar="N", help="words per prompt (default: 60)")
    what.add_argument("--new-tokens", type=int, default=8, metavar="N", help="tokens generated (default: 8)")
    how = parser.add_argument_group("pruning and measurement")
    how.add_argument("--layer", type=int, help="decoder layer before which methods inside the model prune")
    how.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="method fields")
    how.add_argument("--protocol", choices=("site", "average"), default="site", help="as for run")
    how.add_argument(
        "--seed", nargs=1, type=int, default=[0], metavar="N", help="seed of pixels, words and random choices"
    )
    how.add_argument("--repeats", type=int, default=10, metavar="N", help="measured calls per row (default: 10)")
    how.add_argument("--warmup", type=int, default=2, metavar="N", help="calls before them (default: 2)")
    how.add_argument(
        "--graphs",
        action="store_true",
        help="also time the prefill as CUDA graphs, as a serving engine runs it (on a CPU as plain calls)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, or balanced over all GPUs")
    machine.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16")
    machine.add_argument(
        "--attn", default="auto", help="attention kernel: auto, sdpa, eager, varlen (towers), flash_attention_2"
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--output",
        type=Path,
        default=Path("results/bench.jsonl"),
        metavar="FILE",
        help="measured rows, stored and used again by the same command (default: results/bench.jsonl)",
    )
    files.add_argument("--csv", type=Path, metavar="FILE", help="also write the table as CSV")
    files.add_argument(
        "--json", type=Path, metavar="FILE", help="also write it as JSON, with environment and raw times"
    )
    files.add_argument("--plot", type=Path, metavar="FILE", help="draw latency against visual tokens (PNG, PDF, SVG)")


def act(options: argparse.Namespace) -> int:
    """Time every model, batch and number of visual tokens under every method."""
    from uniprune.latency.measure import Bench
    from uniprune.latency.options import BenchOptions
    from uniprune.latency.plot import check_plot, plot
    from uniprune.latency.rows import BenchFile
    from uniprune.latency.tables import notes, show, to_csv, to_json
    from uniprune.latency.timed_model import check_models, load_timed
    from uniprune.modeling.loading import place
    from uniprune.utils.console import RunProgress

    fill_in(options)
    names = [options.model] if isinstance(options.model, str) else list(dict.fromkeys(options.model))
    choices = [MethodSpec("none"), *(choice for choice in method_choices(options) if choice.name != "none")]
    settings = BenchOptions(
        batches=tuple(dict.fromkeys(options.batch)),
        tokens=tuple(dict.fromkeys(options.tokens)) if options.tokens else None,
        text=options.text_tokens,
        new_tokens=options.new_tokens,
        repeats=options.repeats,
        warmup=options.warmup,
        seed=options.seed[0],
        protocol=options.protocol,
        graphs=options.graphs,
    )
    placement = place(options.dtype, options.attn, options.device)
    if options.plot is not None:
        check_plot(options.plot)
    for path in (options.output, options.csv, options.json, options.plot):
        if path is not None:
            check_writable(path)
    outlines = check_models(names, options.random_weights, placement, settings.tokens or ())
    file = BenchFile(options.output)
    groups = len(names) * len(settings.batches) * len(settings.tokens or (None,))
    calls = groups * len(choices) * (settings.repeats + settings.warmup)
    rows = []
    with RunProgress(calls, Console(stderr=True)) as progress:
        for name, outlined in zip(names, outlines, strict=True):
            progress.begin(f"{name} · loading")
            model = load_timed(name, options.random_weights, placement, outlined)
            progress.say(f"{name} ({model.placement}, {'random weights' if options.random_weights else 'checkpoint'})")
            rows += Bench(model, choices, settings, file, progress).run()
            del model  # one at a time on the device
    show(rows)
    for note in notes(rows):
        say_wrapped(note)
    for path, content in ((options.csv, to_csv), (options.json, to_json)):
        if path is not None:
            write(path, content(rows))
            say(f"written: {path}")
    if options.plot is not None:
        plot(rows, options.plot)
        say(f"written: {options.plot}")
    say(f"measured rows: {options.output}")
    if all(row.measured is None for row in rows):
        raise UserError(f"nothing could be measured: {rows[0].error}")
    return 0
