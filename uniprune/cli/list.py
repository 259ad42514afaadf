"""`python run.py list`: list registered methods, models, benchmarks and strategies."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from uniprune.cli.parser import nearest
from uniprune.errors import UserError
from uniprune.modeling.catalog import ModelEntry, catalog
from uniprune.pruning.base import Pruner
from uniprune.registry import BENCHMARKS, METHODS, MODELS
from uniprune.reports.method_cards import licence, needs, parameters, served, served_as
from uniprune.utils.console import say
from uniprune.utils.json_text import to_json
from uniprune.utils.paths import PACKAGE, ROOT
from uniprune.utils.remembered import remembered
from uniprune.utils.terminal import Column, say_wrapped, show_table

HELP = "list registered methods, models, benchmarks and strategies"
SHOWN = {
    "methods": ("method", "kind", "layer", "servable", "idea"),
    "models": ("model", "source", "suite", "prompts", "images"),
    "benchmarks": ("benchmark", "suite", "ability", "rows", "state", "size"),
    "strategies": ("strategy", "of", "paper", "idea"),
}
"""Columns of the tables; entries by name and --long have everything."""
PROSE = ("idea", "ability", "source")
"""Columns that may be wrapped between words."""
NUMBERS = ("layer", "rows", "size")
"""Columns that end at the same place."""
CITATION = re.compile(r"\s*\([^()]*\b(?:20\d\d|arXiv)\b[^()]*\)")
"""The place of publication in an idea, which tables have no room for."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `list`."""
    parser.set_defaults(imports_torch=False)
    parser.add_argument("what", choices=tuple(LISTINGS))
    parser.add_argument("pattern", nargs="?", default="*", help="only matching names, e.g. 'random*'")
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="folder of the benchmarks' files"
    )
    parser.add_argument("--long", action="store_true", help="print everything known of each, as for a single name")
    parser.add_argument("--json", action="store_true", help="print JSON")


def act(options: argparse.Namespace) -> int:
    """Print the registered entries of a kind."""
    rows = LISTINGS[options.what](options)
    if not rows:
        known = [str(next(iter(row.values()))) for row in LISTINGS[options.what](_every(options))]
        raise UserError(f"no {options.what} match {options.pattern!r}{nearest(options.pattern, known)}")
    if options.json:
        say(to_json(rows, indent=1))
    elif options.long or (len(rows) == 1 and options.pattern != "*"):
        show_cards(rows)
    else:
        names = SHOWN[options.what]
        heads = [Column(name, right=name in NUMBERS, prose=name in PROSE) for name in names]
        show_table(heads, [[_in_table(name, row) for name in names] for row in rows])
        say(f"{len(rows)} {options.what}; --long, or a name, shows everything known, --json for programs")
    return 0


def show_cards(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print every entry as lines of name and value."""
    for number, row in enumerate(rows):
        if number:
            say("")
        for key in row:
            if text := _shown(key, row):
                say_wrapped(f"{key}: {text}", indent="  " * (key != next(iter(row))))


def _every(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options with a pattern that everything matches."""
    return argparse.Namespace(**{**vars(options), "pattern": "*"})


def _shown(key: str, row: Mapping[str, Any]) -> str:
    """Return the value of a row as text."""
    value = row[key]
    if key == "size" and value:
        return decimal(value)
    if key == "rows" and row["estimated"]:
        return f"~{value}"
    return _cell(value)


def _in_table(key: str, row: Mapping[str, Any]) -> str:
    """Return the same for a table, which has room for a yes or no, but not for the reason."""
    text = CITATION.sub("", _shown(key, row))
    return text.partition(":")[0] if key == "servable" else text


def list_methods(options: argparse.Namespace) -> list[dict[str, Any]]:
    """List methods: where they act, what they need, paper and fields."""
    rows = _kept("methods", _every_method, options)
    # Cards have no room for sentences.
    hidden = () if options.json else ("code", "deviations", "releases")
    return [
        {key: value for key, value in row.items() if key not in hidden}
        for row in rows
        if fnmatch(row["method"], options.pattern)
    ]


def _kept(kind: str, make: Callable[[], list[Any]], options: argparse.Namespace) -> list[Any]:
    """Return the entries of a kind without importing them again; those of plugins are never kept."""
    if options.plugin:
        return make()
    packages = [ROOT / "methods", ROOT / "models", PACKAGE / "pruning", PACKAGE / "modeling", PACKAGE / "reports"]
    rows: list[Any] = remembered(kind, [*packages, PACKAGE / "cli"], make)
    return rows


def _every_method() -> list[dict[str, Any]]:
    """List all methods."""
    from uniprune.utils.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    rows: list[dict[str, Any]] = []
    for name in METHODS.names():
        entry = METHODS.entry(name)
        method: type[Pruner] = entry.target
        # Fields that every method has would hide a method's own.
        details = {key: entry.metadata.get(key, "") for key in ("code", "deviations", "releases")}
        details["licence"] = licence(entry.metadata)
        rows.append(
            {
                "method": name,
                "kind": method.kind,
                "layer": method.layer,
                "needs": needs(method),
                "servable": served(method),
                "paper": entry.metadata.get("paper", ""),
                "idea": entry.summary,
                "fields": {field.name: field.default for field in parameters(method)},
                **details,
            }
        )
    for name, published in METHODS.published().items():
        details = {key: published.metadata.get(key, "") for key in ("code", "deviations")}
        details["licence"] = licence(published.metadata)
        rows.append(
            {
                "method": name,
                "kind": "published",
                "layer": None,
                "needs": [],
                "servable": served_as(published),
                "paper": published.metadata.get("paper", ""),
                "idea": f"{published.means}: {published.summary}",
                "fields": dict(published.settings),
                **details,
            }
        )
    return rows


def list_models(options: argparse.Namespace) -> list[dict[str, Any]]:
    """List the names in configs/models.yaml and the supported families."""
    named = [e for e in catalog().values() if fnmatch(e.name, options.pattern)]
    rows: list[dict[str, Any]] = [
        {"model": e.name, "source": e.source, "suite": e.suite, "prompts": e.prompts, "images": e.images}
        | {"idea": "configs/models.yaml"}
        | ({"image settings": _image_settings(e)} if options.json else {})
        for e in named
    ]
    for name, idea in _kept("families", _every_family, options):
        if not fnmatch(name, options.pattern):
            continue
        rows.append(
            {
                "model": f"family {name}",
                "source": "any folder or hub id",
                "suite": "",
                "prompts": "",
                "images": "",
                "idea": idea,
                **({"image settings": {}} if options.json else {}),
            }
        )
    return rows


def _every_family() -> list[tuple[str, str]]:
    """List all families with their ideas."""
    from uniprune.utils.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    return [(name, MODELS.entry(name).summary) for name in MODELS.names()]


def _image_settings(entry: ModelEntry) -> dict[str, Any]:
    """Return the image settings of an entry, those of single benchmarks included."""
    return entry.plain() | {name: more.plain() for name, more in entry.benchmarks.items()}


def list_benchmarks(options: argparse.Namespace) -> list[dict[str, Any]]:
    """List benchmarks and the state of their files in the data folder."""
    rows = []
    for name in BENCHMARKS.names(options.pattern):
        entry = BENCHMARKS.entry(name)
        metadata = {key: entry.metadata.get(key, "") for key in ("suite", "ability", "metric", "judge", "rows")}
        estimated = not entry.metadata.get("rows_known", True)
        source = entry.metadata.get("source")
        file = source.inspect(options.data_dir) if source else None
        local = {
            "state": file.state if file else "needs no file",
            "size": file.size if file else None,
            "md5": file.md5 if file else None,
            "file": str(file.path) if file else "",
        }
        rows.append({"benchmark": name, **metadata, "estimated": estimated, **local, "idea": entry.summary})
    return rows


def list_strategies(options: argparse.Namespace) -> list[dict[str, Any]]:
    """List strategies of fine-tuning, for samples and for tokens."""
    from uniprune.tuning.strategy import SAMPLES, TOKENS

    rows = []
    for part, registry in (("samples", SAMPLES), ("tokens", TOKENS)):
        for name in registry.names(options.pattern):
            entry = registry.entry(name)
            fields = {field.name: str(field.default) for field in dataclasses.fields(entry.target)}
            paper = entry.metadata.get("paper", "")
            rows.append({"strategy": name, "of": part, "paper": paper, "idea": entry.summary, "fields": fields})
    return rows


def _cell(value: object) -> str:
    """Format a value as text."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else ""
        case Mapping():
            return " ".join(f"{key}={item}" for key, item in value.items())
        case str():
            return value
        case Iterable():
            return ", ".join(map(str, value))
    return str(value)


LISTINGS = {
    "methods": list_methods,
    "models": list_models,
    "benchmarks": list_benchmarks,
    "strategies": list_strategies,
}
