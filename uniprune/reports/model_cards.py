"""Table of the model families for docs/models.md, from their declarations and by trying every method on tiny models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from uniprune.engine import prune
from uniprune.errors import UserError
from uniprune.modeling.adapter import USUAL, ModelAdapter
from uniprune.modeling.catalog import catalog
from uniprune.modeling.image_sizes import ImageSizes
from uniprune.modeling.tiny import tiny_model
from uniprune.pruning.base import Pruner
from uniprune.registry import MODELS, Entry
from uniprune.reports.method_cards import embedded, needs
from uniprune.utils.tables import to_markdown, with_table

BEGIN = "<!-- python run.py cards --models docs/models.md -->"
COLUMNS = ("family", "geometry", "tried with", "weights tried", "names", "refuses")
RATIO = 0.5
SETTINGS: Sequence[Mapping[str, Any]] = (
    {"positions": "compact"},
    *({"scope": scope} for scope in ("prompt", "grid", "tile")),
    {"order": "release"},
)
"""Settings that every method has, tried with one that reads tokens only."""
ROTARY = "rotary positions"


def families() -> list[Entry]:
    """Return the families of this repository, without those of plugins."""
    entries = [MODELS.entry(name) for name in MODELS.names()]
    return [entry for entry in entries if entry.target.__module__.startswith(f"{MODELS.package}.")]


def model_cards() -> str:
    """Return the table of all families, and the reasons of what they refuse below it."""
    reasons: dict[str, int] = {}
    rows = []
    for entry in families():
        refused: dict[str, list[str]] = {}
        for label, reason in refusals(entry.name):
            refused.setdefault(reason, []).append(label)
        words = [
            f"{_few(labels)} [{reasons.setdefault(reason, len(reasons) + 1)}]" for reason, labels in refused.items()
        ]
        adapter: type[ModelAdapter] = entry.target
        tried = {**adapter.tried, ROTARY: adapter.tried.get(ROTARY, USUAL[ROTARY])}
        rows.append(
            [
                f"`{entry.name}`",
                entry.summary.rstrip("."),
                "; ".join(f"{part} {', '.join(kinds)}" for part, kinds in tried.items()),
                ", ".join(["random", *(f"trained {name}" for name in trained(entry.name))]) + "; published: never",
                ", ".join(name for name, one in catalog().items() if one.family == entry.name) or "–",
                "; ".join(words) or "nothing",
            ]
        )
    notes = "".join(f"\n{number}. {reason}" for reason, number in reasons.items())
    return to_markdown(COLUMNS, rows) + (f"\nRefused, because:\n{notes}\n" if notes else "")


def refusals(family: str) -> Iterator[tuple[str, str]]:
    """Yield what a family's tiny model refuses, with the reason, by a prefill under every method and setting.

    Input stages have no prefill of their own: they are refused where no sizes of images are described.
    """
    tiny = tiny_model(family)
    model = tiny.model()
    prompt = tiny.prompt(torch.Generator().manual_seed(0), [tiny.size])
    described = type(tiny.adapter).input_forms is not ImageSizes.input_forms
    for label, pruner in tries():
        if pruner.input_stage is not None and described:
            continue
        try:
            if pruner.input_stage is not None:
                tiny.adapter.input_forms(None, 1)
            with prune(model, pruner), torch.no_grad():
                model(**tiny.batch([prompt]))
        except UserError as error:
            yield label, " ".join(str(error).split())


@cache
def tries() -> tuple[tuple[str, Pruner], ...]:
    """Return every method at its defaults, and one of them with each of `SETTINGS`, by what is printed for it."""
    methods = {entry.name: entry.target for entry in embedded()}
    plain = ((name, method(ratio=RATIO)) for name, method in methods.items() if name != "none")
    simple = next(method for method in methods.values() if method.kind == "pre-llm" and not needs(method))
    special = ((_words(fields), simple(ratio=RATIO, **fields)) for fields in SETTINGS)
    return (*plain, *special)


def trained(family: str) -> list[str]:
    """Return the names of this repository's trained tiny models of a family."""
    return [name for name, entry in catalog().items() if entry.folder is not None and _family(entry.folder) == family]


def with_cards(page: str) -> str:
    """Return a page with the table between its marks.

    Raises:
        UserError: it has no marks.
    """
    return with_table(page, BEGIN, model_cards)


def _family(folder: Path) -> str:
    """Return the `model_type` of a checkpoint; empty if it is not on this machine."""
    config = folder / "config.json"
    return str(json.loads(config.read_text(encoding="utf-8"))["model_type"]) if config.is_file() else ""


def _words(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in fields.items())


def _few(labels: Sequence[str]) -> str:
    """Join the refused methods; all of them are "every method"."""
    methods = [label for label, _ in tries() if not label.startswith("`")]
    rest = [label for label in labels if label not in methods]
    return ", ".join(["every method", *rest] if set(methods) <= set(labels) else labels)
