"""`python run.py serve-bench`: throughput and latency of served models, with and without pruning."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from uniprune.utils.console import say, stdout, write
from uniprune.utils.files import check_writable

HELP = "throughput and latency of served models under load"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `serve-bench`."""
    what = parser.add_argument_group("servers and load")
    what.add_argument(
        "--server",
        nargs="+",
        required=True,
        metavar="URL",
        help="servers of vLLM with the plug-in uniprune-vllm, one per method and ratio: the un-pruned "
        "model, the pruned ones, and random pruning",
    )
    what.add_argument(
        "--concurrency", nargs="+", type=int, default=[1, 2, 4, 8, 16], metavar="N", help="requests in flight"
    )
    what.add_argument(
        "--requests", type=int, default=64, metavar="N", help="per server, concurrency and round (default: 64)"
    )
    what.add_argument("--rounds", type=int, default=2, metavar="N", help="all servers in turn (default: 2)")
    what.add_argument("--warmup", type=int, default=4, metavar="N", help="requests before that (default: 4)")
    prompts = parser.add_argument_group("prompts")
    prompts.add_argument(
        "--image-side", type=int, default=336, metavar="N", help="pixels per side of the image (default: 336)"
    )
    prompts.add_argument("--words", type=int, default=16, metavar="N", help="words of the text (default: 16)")
    prompts.add_argument("--new-tokens", type=int, default=32, metavar="N", help="tokens generated (default: 32)")
    prompts.add_argument("--seed", type=int, default=0, metavar="N", help="seed of pixels and words")
    prompts.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds that a request may take")
    files = parser.add_argument_group("files")
    files.add_argument(
        "--output",
        type=Path,
        default=Path("results/serve-bench.jsonl"),
        metavar="FILE",
        help="measured rows, stored and used again by the same command (default: results/serve-bench.jsonl)",
    )
    files.add_argument("--csv", type=Path, metavar="FILE", help="also write the table as CSV")
    files.add_argument("--json", type=Path, metavar="FILE", help="also write it as JSON, with raw times")


def act(options: argparse.Namespace) -> int:
    """Apply the same load to every server, at every concurrency."""
    from uniprune.evaluation.serving.backend import Served
    from uniprune.latency.serving.bench import ServeBench
    from uniprune.latency.serving.options import LoadOptions
    from uniprune.latency.serving.rows import ServeFile
    from uniprune.latency.serving.tables import notes, to_csv, to_json, to_table
    from uniprune.utils.console import RunProgress

    settings = LoadOptions(
        concurrency=tuple(dict.fromkeys(options.concurrency)),
        requests=options.requests,
        rounds=options.rounds,
        warmup=options.warmup,
        side=options.image_side,
        words=options.words,
        new_tokens=options.new_tokens,
        seed=options.seed,
    )
    for path in (options.output, options.csv, options.json):
        if path is not None:
            check_writable(path)
    served = Served(tuple(options.server), options.timeout)
    file = ServeFile(options.output)
    each = settings.requests * settings.rounds * len(settings.concurrency)
    with RunProgress((len(served.servers) + 1) * each, Console(stderr=True)) as progress:
        for server in served.servers:
            progress.say(f"{server.address}: {server.label} ({server.dtype}, vllm {server.version}, {server.machine})")
        rows = ServeBench(served.servers, settings, file, progress, served.timeout).run()
    console = stdout(240)
    console.print(to_table(rows))
    for note in notes(rows):
        console.print(note, highlight=False, markup=False)
    for path, content in ((options.csv, to_csv), (options.json, to_json)):
        if path is not None:
            write(path, content(rows))
            say(f"written: {path}")
    say(f"measured rows: {options.output}")
    return 0
