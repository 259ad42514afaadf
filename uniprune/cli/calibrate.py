"""`python run.py calibrate METHOD`: search a method's settings on prompts of the un-pruned model."""

from __future__ import annotations

import argparse
from pathlib import Path

from uniprune.cli.run import fill_in, image_arguments
from uniprune.utils.json_text import to_json
from uniprune.utils.paths import PROGRAM

HELP = "search a method's settings on a few prompts"
SAMPLES = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `calibrate`."""
    parser.set_defaults(resumes=True)
    parser.add_argument("method", metavar="METHOD", help="name of a method with a search")
    parser.add_argument("--model", help="name in configs/models.yaml, hub id or folder")
    parser.add_argument("--like", metavar="NAME", help="as for run")
    parser.add_argument("--data", nargs="+", metavar="NAME", help="benchmarks to take prompts from; * is a wildcard")
    parser.add_argument("--suite", help="all benchmarks of a suite")
    parser.add_argument(
        "--limit", type=int, default=SAMPLES, metavar="N", help=f"prompts with images in all (default: {SAMPLES})"
    )
    parser.add_argument(
        "--search", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="fields of the search"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the result; `--set @FILE` reads it")
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("results/calibration"),
        metavar="DIR",
        help="observations by prompt, with which an interrupted search resumes (default: results/calibration)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, or balanced over all GPUs")
    parser.add_argument("--dtype", default="auto", help="auto, float32, float16 or bfloat16")
    parser.add_argument(
        "--attn", default="auto", help="attention kernel: auto, sdpa, eager, varlen (towers), flash_attention_2"
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="folder of the benchmarks' files"
    )
    image_arguments(parser)


def act(options: argparse.Namespace) -> int:
    """Run the method's search on prompts and print its result."""
    import shlex
    from collections import Counter
    from contextlib import ExitStack

    import torch
    from rich.console import Console

    from uniprune.errors import UserError
    from uniprune.evaluation.code_hash import code_hash
    from uniprune.evaluation.collection import DatasetCollection, dataset_names
    from uniprune.evaluation.frame_sampling import FrameSampling
    from uniprune.evaluation.generation import Generator
    from uniprune.evaluation.method_spec import parse_settings, plain, search_of
    from uniprune.evaluation.processing import RequestEncoder
    from uniprune.evaluation.prompts import worded
    from uniprune.evaluation.video_support import check_videos
    from uniprune.modeling.catalog import find_model, unused_settings
    from uniprune.modeling.loading import load, place
    from uniprune.pruning.calibration import Calibration, Notes
    from uniprune.results.remarks import REMARKS
    from uniprune.utils.console import RunProgress, say, write

    if options.limit < 1:
        raise UserError(f"limit {options.limit} must be at least 1")
    search: Calibration = search_of(options.method, parse_settings(options.search))
    options.ratio, method = [], options.method  # not to be filled in from the configuration
    fill_in(options)
    entry = find_model(options.model, options.like)
    collection = DatasetCollection(options.data_dir, judge="rule")  # nothing is scored here
    datasets = collection.all(dataset_names(options.data, options.suite or entry.suite))
    each = -(-options.limit // len(datasets))  # equal parts, so that a few prompts cover all benchmarks
    requests = [(dataset, request) for dataset in datasets for request in dataset.requests(each)][: options.limit]
    sampling = FrameSampling.of(options.frames, options.fps)
    loaded = load(entry, place(options.dtype, options.attn, options.device))
    for dataset in datasets:
        check_videos(loaded, dataset.name, dataset.requests(each), shares_features=False)
    setup = {
        "search": type(search).__name__,
        "fields": plain({key: value for key, value in vars(search).items() if key not in search.decides}),
        "code": code_hash([type(search)]),
        "weights": loaded.weights,
        "processor": loaded.image_processor,
        "prompts": entry.prompts,
        "image_decoding": options.image_decoding,
        "frames": str(sampling),
        "placement": [
            *(loaded.placement.dtype, loaded.placement.attention, loaded.placement.tower, loaded.placement.kind)
        ],
    }
    generator, notes = Generator(loaded), Notes(options.keep, setup)
    encoders = {
        one.name: RequestEncoder(
            loaded.processor_for(one.name),
            decoding=options.image_decoding,
            settings=entry.image_settings(one.name),
            sampling=sampling,
        )
        for one in datasets
    }
    observed, remarks = [], Counter[str]()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        progress = stack.enter_context(RunProgress(len(requests), Console(stderr=True)))
        progress.say(f"{entry.name} ({loaded.placement}), {len(requests)} prompts")
        unused = unused_settings(entry, loaded.adapter.model.config.model_type, entry.prompts)
        for remark in filter(None, (unused, loaded.adapter.untried())):
            progress.say(f"  {remark}")
        progress.begin(f"{method} search")
        for dataset, request in requests:
            prompt = f"{dataset.name} {dataset.fingerprint} {request.index}"
            if (noted := notes.read(prompt)) is None:
                asked = (
                    worded(request, loaded.adapter.prompt, loaded.adapter.system)
                    if entry.prompts == "family"
                    else request
                )
                row = encoders[dataset.name].encode(asked)
                remarks.update(row.remarks)
                if row.error is not None:
                    progress.say(f"row {row.index} is left out: {row.error}")
                elif row.visual:
                    noted = notes.write(prompt, search.observe(loaded.model, generator.tensors(row.inputs)))
            if noted is not None:
                observed.append(noted)
            progress.advance(1)
        for remark, rows in remarks.items():
            progress.say(f"{rows} prompts {REMARKS.get(remark, remark)}")
    if not observed:
        raise UserError(
            f"none of the {len(requests)} prompts has an image that the model accepts; choose another --data or a "
            "larger --limit"
        )
    found = search.result(observed)
    if options.output is not None:
        content = {
            "method": method,
            "model": {"name": entry.name, "weights": loaded.weights},
            "prompts": {dataset.name: dataset.fingerprint for dataset in datasets} | {"seen": len(observed)},
            "search": dict(parse_settings(options.search)),
            "ratio": found.ratio,
            "settings": dict(found.settings),
            "evidence": dict(found.evidence),
        }
        write(options.output, to_json(content, indent=1) + "\n")
        say(f"written: {options.output}")
    say(found.summary)
    file = None if options.output is None else str(options.output)
    say(f"{PROGRAM} --model {shlex.quote(options.model)} {found.words(method, file)}")
    return 0
