"""`python run.py show`: draw which visual tokens methods keep over the picture."""

from __future__ import annotations

import argparse
import re
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from uniprune.errors import UserError

if TYPE_CHECKING:  # importing them imports torch
    from collections.abc import Mapping, Sequence

    from uniprune.evaluation.collection import DatasetCollection
    from uniprune.evaluation.method_spec import MethodSpec
    from uniprune.reports.overlays.answers import Drawn, ShownRow

HELP = "draw which visual tokens methods keep, over the picture"
FORMATS = ("png", "html", "gif", "apng")
VARIANT = re.compile(r"(?P<name>[^\[\]]+)(\[(?P<fields>[^\[\]]*)\])?")
"""A method with settings of its own: NAME or NAME[field=value,...]."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `show`."""
    from uniprune.cli.run import image_arguments

    parser.add_argument(
        "target",
        nargs="+",
        metavar="TARGET",
        help="image or video file, folder of images, or BENCHMARK:ROW (a benchmark alone: its first rows)",
    )
    parser.add_argument("--question", metavar="TEXT", help="question about images of your own")
    parser.add_argument("--limit", type=int, default=1, metavar="N", help="rows of a folder or benchmark (default: 1)")
    parser.add_argument(
        "--stored",
        type=Path,
        metavar="DIR",
        help="draw what the runs in this --output folder kept (--keep-selections), all of them, without a model",
    )
    what = parser.add_argument_group("what to draw")
    what.add_argument("--model", nargs="+", help="names in configs/models.yaml, hub ids or folders")
    what.add_argument("--like", metavar="NAME", help="as in `run`")
    what.add_argument(
        "--method",
        nargs="+",
        metavar="NAME",
        help="methods side by side; NAME[field=value,...] for one with settings of its own",
    )
    what.add_argument("--ratio", nargs="+", type=float, help="share of visual tokens to keep, one row of panels each")
    what.add_argument("--layer", type=int, help="as in `run`")
    what.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="as in `run`")
    what.add_argument("--seed", type=int, default=0, metavar="N", help="as in `run`")
    what.add_argument("--maps", action="store_true", help="draw the attention that methods look at, too")
    what.add_argument(
        "--blocks",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="draw the attention of these blocks of the vision tower, from 0, negative from the end",
    )
    files = parser.add_argument_group("files")
    files.add_argument("--output", type=Path, default=Path("show"), metavar="DIR", help="folder of the drawings")
    files.add_argument(
        "--format",
        nargs="+",
        choices=FORMATS,
        default=["png"],
        help="png: a sheet per row; gif and apng: an animation over the ratios; html: one page with sliders for all",
    )
    files.add_argument(
        "--side", type=int, default=448, metavar="PIXELS", help="longer side of a picture, by default 448"
    )
    files.add_argument("--columns", type=int, default=6, metavar="N", help="most panels in a line, by default 6")
    files.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="as in `run`")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="as in `run`")
    machine.add_argument("--dtype", default="auto", help="as in `run`")
    machine.add_argument("--attn", default="auto", help="as in `run`")
    machine.add_argument("--prompts", choices=("benchmark", "family"), help="as in `run`")
    machine.add_argument("--images", choices=("paper", "checkpoint"), help="as in `run`")
    image_arguments(parser)


def act(options: argparse.Namespace) -> int:
    """Draw the rows."""
    from rich.console import Console

    from uniprune.cli.run import fill_in
    from uniprune.evaluation.collection import DatasetCollection
    from uniprune.evaluation.frame_sampling import FrameSampling
    from uniprune.modeling.catalog import find_model
    from uniprune.modeling.loading import load, place
    from uniprune.reports.overlays.answers import Drawn, Reader, check_blocks
    from uniprune.reports.overlays.targets import shown_rows
    from uniprune.utils.console import RunProgress

    for name, least in (("limit", 1), ("side", 32), ("columns", 1)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} {getattr(options, name)} must be at least {least}")
    models: list[str] | None = options.model
    if options.stored is None:
        fill_in(options)
    collection = DatasetCollection(options.data_dir, judge="rule")  # nothing is scored here
    rows: list[ShownRow] = []
    for target in options.target:
        rows += shown_rows(target, options.question, collection, options.limit)
    if options.stored is not None:
        write_drawings(stored_drawings(rows, collection, options), options)
        return 0
    reader = Reader(options.image_decoding, FrameSampling.of(options.frames, options.fps))
    drawn = [Drawn(row, reader.pictures(row)) for row in rows]
    variants = method_variants(options)
    check_questions(variants, options)
    with RunProgress(len(rows) * len(models or "1"), Console(stderr=True)) as progress:
        for name in models or [options.model]:
            entry = find_model(name, options.like).with_images(options.images)
            entry = entry if options.prompts is None else entry.model_copy(update={"prompts": options.prompts})
            loaded = load(entry, place(options.dtype, options.attn, options.device))
            check_blocks(options.blocks, loaded.adapter)
            progress.say(f"{entry.name} ({loaded.placement})")
            for one in drawn:
                progress.begin(one.row.name)
                one.lines += reader.lines(loaded, one.row, variants, options.blocks)
                progress.advance(1)
    write_drawings(drawn, options)
    return 0


def stored_drawings(
    rows: Sequence[ShownRow], collection: DatasetCollection, options: argparse.Namespace
) -> list[Drawn]:
    """Return rows with what stored runs kept of them.

    Raises:
        UserError: options or files that have no meaning then, or nothing stored.
    """
    from uniprune.reports.overlays.stored import stored_drawing
    from uniprune.results.store import Store

    unused = [name for name in ("model", "method", "ratio", "blocks", "maps", "set") if getattr(options, name)]
    if unused:
        raise UserError(f"--{unused[0]} has no meaning with --stored, which draws every run of a folder; leave it out")
    if own := [row.name for row in rows if not row.benchmark]:
        raise UserError(f"--stored draws rows of benchmarks; {own[0]} is a file. Give BENCHMARK:ROW")
    if not options.stored.is_dir():
        raise UserError(f"--stored {options.stored} is no folder; expected the --output folder of runs")
    return [stored_drawing(Store(options.stored), collection.get(row.benchmark), row) for row in rows]


def method_variants(options: argparse.Namespace) -> dict[str, list[MethodSpec]]:
    """Return the methods, by the names in captions, at every ratio; the un-pruned model is not among them.

    Raises:
        UserError: an unknown method or field, or a value that a method refuses.
    """
    from uniprune.evaluation.method_spec import MethodSpec, parse_settings

    given, common = {}, parse_settings(options.set)
    for text in dict.fromkeys(options.method):
        match = VARIANT.fullmatch(text)
        if match is None:
            raise UserError(f"--method {text!r} must have the form NAME or NAME[field=value,field=value]")
        fields = match["fields"]
        given[text] = MethodSpec(match["name"]), parse_settings(fields.split(",") if fields else [])
    methods = {text: method for text, (method, _) in given.items() if not method.unpruned}
    inside = [text for text, method in methods.items() if method.prunes_inside] or [*methods]
    unused = {key for key in common if not any(method.has(key) for method in methods.values())}
    found: dict[str, list[MethodSpec]] = {}
    for text, method in methods.items():
        fields = {key: value for key, value in common.items() if method.has(key) or key in unused} | given[text][1]
        layer = options.layer if text in inside else None
        specs = [MethodSpec(method.name, ratio, layer, options.seed, fields).normalised() for ratio in options.ratio]
        for spec in specs:
            spec.pruner()
        found[text] = specs
    return found


def check_questions(variants: Mapping[str, Sequence[MethodSpec]], options: argparse.Namespace) -> None:
    """Refuse methods that choose by the question where files are shown without one.

    Raises:
        UserError: there is such a method.
    """
    asking = [text for text, specs in variants.items() if any(one.needs_text for one in specs[0].classes.values())]
    if options.question is None and asking and any(Path(one).expanduser().exists() for one in options.target):
        raise UserError(
            f"the question decides which tokens {' and '.join(asking)} would keep, and an image of your own has none; "
            'give --question TEXT, for example --question "What does the sign say?"'
        )


def free_stem(name: str, taken: set[str]) -> str:
    """Return a file name without ending for a row, numbered if another row of the command has it, and take it."""
    stem = re.sub(r"[^\w-]+", "-", name.rsplit(".", 1)[0] if Path(name).suffix else name)
    free = next(one for number in count(1) if (one := stem if number == 1 else f"{stem}-{number}") not in taken)
    taken.add(free)
    return free


def write_drawings(drawn: Sequence[Drawn], options: argparse.Namespace) -> None:
    """Write the files, print their paths and the answers."""
    from uniprune.reports.overlays.animation import frames, save
    from uniprune.reports.overlays.drawing import draw
    from uniprune.reports.overlays.layout import cost, sheet_of, short
    from uniprune.reports.overlays.page import page
    from uniprune.utils.console import say, write
    from uniprune.utils.files import explain_write

    several = len({choice.model for one in drawn for line in one.lines for choice in line}) > 1
    stems: set[str] = set()
    for one in drawn:
        sheet = sheet_of(one, options.maps, several)
        stem = options.output / free_stem(one.row.name, stems)
        say(f"{one.row.name}: {short(one.row.asked)}")
        shown: dict[tuple[str, str, float], str] = {}
        for choice in (choice for line in one.lines for choice in line if not choice.only_maps):
            line = f"{short(choice.answer.prediction.prediction)!r}, {cost(choice.answer.prediction)}"
            line += ", reads no scores that could be drawn" * (
                options.maps and choice.ratio < 1 and not choice.answer.maps
            )
            shown[choice.model, choice.method, choice.ratio] = f"  {choice.label(several)}: {line}"
        for line in shown.values():
            say(line)
        if "png" in options.format:
            image, path = draw(sheet, options.side, options.columns), stem.with_name(f"{stem.name}.png")
            with explain_write(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
            say(f"  {path}")
        for ending in {"gif", "apng"} & {*options.format}:
            path = stem.with_name(f"{stem.name}.{ending}")
            save(frames(sheet, options.side, options.columns), path)
            say(f"  {path}")
    if "html" in options.format:
        path = options.output / "show.html"
        write(path, page(drawn))
        say(f"page of all rows: {path}")
