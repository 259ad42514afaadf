"""A card per registered method, from its docstring, its fields and what the registry knows: docs/methods.md.

`python run.py cards > docs/methods.md` writes them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from uniprune.pruning.base import Pruner
from uniprune.registry import METHODS, Entry
from uniprune.utils.paths import ROOT

DEPTH, RATIO = 32, 1 / 3
"""Decoder layers and keep ratio of the example that a card gives."""
HEADINGS = ("Differs from the paper in", "Differs from the release in", "Budget", "Families", "Cost", "Args")
ACTS = {
    "none": "does not prune",
    "pre-llm": "before the language model",
    "intra-llm": "inside the language model",
    "hybrid": "before and inside the language model",
}
_INTRO = """\
# Methods

Generated from the methods' own docstrings by `python run.py cards > docs/methods.md`; edit those instead.
`--set field=value` sets a parameter. All methods round counts in one way, halves up and at least one token; where a
release floors N r, the ratio floor(N r) / N gives its count. Every method also has these:

"""


@dataclass(frozen=True)
class Parameter:
    """One field of a method: its type and default as one would write them, and what it means."""

    name: str
    kind: str
    default: str
    meaning: str


def embedded() -> list[Entry]:
    """The methods that come with the repository, without those of plugins."""
    entries = [METHODS.entry(name) for name in METHODS.names()]
    return [entry for entry in entries if entry.target.__module__.split(".")[0] == METHODS.package]


def cards() -> str:
    """The whole page."""
    entries = embedded()
    links = _anchors([entry.name for entry in entries])
    index = [
        f"| [{entry.name}](#{link}) | {ACTS[entry.target.kind]} | {entry.summary} |"
        for entry, link in zip(entries, links, strict=True)
    ]
    return "\n".join(
        [
            _INTRO + _parameter_table(shared_parameters()),
            "\n".join(["| method | acts | idea |", "| --- | --- | --- |", *index]) + "\n",
            *map(card, entries),
        ]
    )


def card(entry: Entry) -> str:
    """One method's section."""
    method: type[Pruner] = entry.target
    told, own = sections(inspect.getdoc(method) or ""), parameters(method)
    facts = {
        "Paper": _paper(str(entry.metadata.get("paper", ""))),
        "Code": f"[{_source(method)}](../{_source(method)})",
        "Acts": _where(method),
        "Tokens": _count(method),
        "Needs beside the tokens": ", ".join(needs(method)) or "nothing",
    }
    parts = [f"## {entry.name}", told[""], "\n".join(f"* {name}: {fact}" for name, fact in facts.items() if fact)]
    parts += [_parameter_table(own).rstrip()] * bool(own)
    parts += [f"**{heading}:** {told[heading]}" for heading in HEADINGS[:-1] if heading in told]
    return "\n\n".join(parts) + "\n"


def needs(method: type[Pruner]) -> list[str]:
    """What a method looks at beside the projected tokens."""
    return [
        *["LLM attention"] * (method.llm_attention or method.upcoming_attention),
        *["vision tower"] * (method.vision_layers is not Pruner.vision_layers),
        *["text"] * method.needs_text,
    ]


def sections(doc: str) -> dict[str, str]:
    """Heading -> text of a docstring; "" is what stands before the first heading. Paragraphs stay, lines are joined."""
    any_heading = "|".join(heading.replace(" ", r"\s+") for heading in HEADINGS)
    pieces = re.split(rf"(?:^|(?<=\s))({any_heading}):\s", doc)
    texts = {"": pieces[0]} | dict(zip(pieces[1::2], pieces[2::2], strict=True))
    return {" ".join(heading.split()): _joined(text) for heading, text in texts.items()}


def parameters(method: type[Pruner]) -> list[Parameter]:
    """The fields a method adds to those of every method."""
    return [one for one in _fields(method) if one.name not in {f.name for f in dataclasses.fields(Pruner)}]


def shared_parameters() -> list[Parameter]:
    """The fields of every method."""
    return _fields(Pruner)


def _fields(method: type[Pruner]) -> list[Parameter]:
    fields = [field for field in dataclasses.fields(method) if field.init]
    kinds, meaning = get_type_hints(method), _meanings(method, [field.name for field in fields])
    return [Parameter(f.name, _kind(kinds[f.name]), _literal(f.default), meaning.get(f.name, "")) for f in fields]


def _meanings(method: type[Pruner], names: list[str]) -> dict[str, str]:
    """Field -> its line under "Args:", of the method's own class or the base that explains it."""
    one = "|".join(map(re.escape, names))
    found: dict[str, str] = {}
    for owner in reversed(method.__mro__):
        text = sections(inspect.cleandoc(owner.__doc__ or "")).get("Args", "")
        pieces = re.split(rf"(?:^|(?<=\s))((?:{one})(?:, (?:{one}))*): ", text)
        for group, meaning in zip(pieces[1::2], pieces[2::2], strict=True):
            found |= dict.fromkeys(group.split(", "), meaning.strip())
    return found


def _where(method: type[Pruner]) -> str:
    """Stage, with the layers of an example."""
    layers = [stage.layer for stage in method().with_ratio(RATIO).schedule(DEPTH)]
    if layers in ([], [0]):
        return ACTS[method.kind]
    every = layers == list(range(layers[0], DEPTH))
    named = f"every layer from {layers[0]} on" if every else f"layer {', '.join(map(str, layers))}"
    return f"{ACTS[method.kind]}, at ratio 1/3 before {named} of {DEPTH}"


def _count(method: type[Pruner]) -> str:
    stages = method().with_ratio(RATIO).schedule(DEPTH)
    if not stages:
        return "all"
    exact = all(stage.pruner.exact for stage in stages)
    return "exactly what the ratio says" if exact else "as many as the method likes; the ratio is nominal"


def _paper(text: str) -> str:
    """A link to arXiv where an id is given."""
    number = re.fullmatch(r"arXiv (\d{4}\.\d{4,5})", text)
    return f"[{text}](https://arxiv.org/abs/{number[1]})" if number else text


def _parameter_table(rows: list[Parameter]) -> str:
    lines = [f"| `{p.name}` | {p.kind} | `{p.default}` | {p.meaning} |".replace("|  |", "| |") for p in rows]
    return "\n".join(["| parameter | type | default | meaning |", "| --- | --- | --- | --- |", *lines]) + "\n"


def _kind(kind: Any) -> str:
    """A type as a reader expects it; "|" would end a table's cell."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    return f"`{kind.__name__ if isinstance(kind, type) and not get_args(kind) else kind}`".replace(" | ", " or ")


def _literal(default: Any) -> str:
    """A default as `--set` takes it."""
    return "null" if default is None else str(list(default)) if isinstance(default, tuple) else str(default)


def _source(method: type[Pruner]) -> str:
    """Path of the defining file in the repository."""
    path = Path(inspect.getsourcefile(method) or "").resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _anchors(names: list[str]) -> list[str]:
    """The ids that GitHub gives headings: signs are dropped, and what then repeats is numbered."""
    plain = [re.sub(r"[^\w-]", "", name) for name in names]
    return [f"{name}-{plain[:i].count(name)}" if name in plain[:i] else name for i, name in enumerate(plain)]


def _joined(text: str) -> str:
    """Paragraphs with their lines joined."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
