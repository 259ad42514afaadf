"""`python run.py list`: list registered methods, models, benchmarks and strategies."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.table import Table

from uniprune.errors import UserError
from uniprune.modeling.catalog import ModelEntry, catalog
from uniprune.pruning.base import Pruner
from uniprune.registry import BENCHMARKS, METHODS, MODELS
from uniprune.reports.method_cards import licence, needs, parameters
from uniprune.utils.console import say, stdout
from uniprune.utils.json_text import to_json

HELP = "list registered methods, models, benchmarks and strategies"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `list`."""
    parser.add_argument("what", choices=tuple(LISTINGS))
    parser.add_argument("pattern", nargs="?", default="*", help="only matching names, e.g. 'random*'")
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="folder of the benchmarks' files"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def act(options: argparse.Namespace) -> int:
    """Print the registered entries of a kind."""
    rows = LISTINGS[options.what](options)
    if not rows:
        raise UserError(f"no {options.what} match {options.pattern!r}")
    if options.json:
        say(to_json(rows, indent=1))
        return 0
    table = Table(*rows[0], box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(decimal(value) if key == "size" and value else _cell(value) for key, value in row.items()))
    stdout().print(table)
    return 0


def list_methods(options: argparse.Namespace) -> list[dict[str, Any]]:
    """List methods: where they act, what they need, paper and fields."""
    rows = []
    for name in METHODS.names(options.pattern):
        entry = METHODS.entry(name)
        method: type[Pruner] = entry.target
        # The text table has no room for sentences, and fields that every method has would hide a method's own.
        details = _details(options, entry.metadata, "code", "deviations", "releases")
        rows.append(
            {
                "method": name,
                "kind": method.kind,
                "layer": method.layer,
                "needs": needs(method),
                "paper": entry.metadata.get("paper", ""),
                "idea": entry.summary,
                "fields": {field.name: field.default for field in parameters(method)},
                **details,
            }
        )
    for name, published in METHODS.published(options.pattern).items():
        details = _details(options, published.metadata, "code", "deviations")
        rows.append(
            {
                "method": name,
                "kind": f"as {published.means}",
                "layer": None,
                "needs": [],
                "paper": published.metadata.get("paper", ""),
                "idea": published.summary,
                "fields": dict(published.settings),
                **details,
            }
        )
    return rows


def _details(options: argparse.Namespace, metadata: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return what the text table has no room for, and the licence of a method's released code."""
    return {key: metadata.get(key, "") for key in keys} | {"licence": licence(metadata)} if options.json else {}


def list_models(options: argparse.Namespace) -> list[dict[str, Any]]:
    """List the names in configs/models.yaml and the supported families."""
    named = [e for e in catalog().values() if fnmatch(e.name, options.pattern)]
    rows: list[dict[str, Any]] = [
        {"model": e.name, "source": e.source, "suite": e.suite, "prompts": e.prompts, "images": e.images}
        | {"idea": "configs/models.yaml"}
        | ({"image settings": _image_settings(e)} if options.json else {})
        for e in named
    ]
    for name in MODELS.names(options.pattern):
        rows.append(
            {
                "model": f"family {name}",
                "source": "any folder or hub id",
                "suite": "",
                "prompts": "",
                "images": "",
                "idea": MODELS.entry(name).summary,
                **({"image settings": {}} if options.json else {}),
            }
        )
    return rows


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
