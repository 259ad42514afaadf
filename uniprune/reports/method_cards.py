"""One card per registered method, as Markdown: `python run.py cards > docs/methods.md`.

A card consists of the method's class docstring, its fields and the metadata of its registry entry (`paper`, `code`,
`licence`, `deviations`, `releases`). Docstrings describe the idea and the cost, and end with the section "Args:", one
line group per field.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from uniprune.pruning.base import Pruner, Stage
from uniprune.pruning.fields import Bound, field_types
from uniprune.pruning.serving import servable
from uniprune.registry import METHODS, Entry, PublishedName
from uniprune.utils.paths import ROOT

DEPTH, RATIO = 32, 1 / 3
"""Decoder layers and keep ratio of the example in a card."""
ACTS = {
    "none": "does not prune",
    "input": "on images, before they are processed",
    "tower": "inside the vision tower",
    "pre-llm": "before the language model",
    "intra-llm": "inside the language model",
    "hybrid": "hybrid, by what is known before and inside the language model",
}
UNSTATED = "not stated"
"""Licence of a release of which nobody noted it."""
_INTRO = """\
# Methods

Generated from the methods' files by `python run.py cards > docs/methods.md`; edit those instead.
`--set field=value` sets a parameter. All methods round counts in one way, halves up and at least one token; where a
release floors N r, the ratio floor(N r) / N gives its count. Deviations say what is different here from the paper, from
the authors' released code, or from another port. Licences are those of the released code, as read when a method's rule
was written down ("not stated": not noted then, so read it before you use that code); no code here is copied from it.
Every method also has these parameters:

"""


@dataclass(frozen=True)
class Parameter:
    """One field of a method, as Markdown.

    Attributes:
        name: of the field.
        kind: its type.
        default: as `--set` takes it.
        meaning: its entry in the section "Args:".
    """

    name: str
    kind: str
    default: str
    meaning: str


def embedded() -> list[Entry]:
    """Return the methods of this repository, without those of plugins."""
    entries = [METHODS.entry(name) for name in METHODS.names()]
    return [entry for entry in entries if entry.target.__module__.startswith(f"{METHODS.package}.")]


def cards() -> str:
    """Return the page: an index and a card per method."""
    entries, published = embedded(), list(METHODS.published().values())
    lines = [(entry.name, ACTS[entry.target.kind], entry.summary) for entry in entries]
    lines += [(one.name, f"as `{one.means}`", one.summary) for one in published]
    links = anchors([name for name, _, _ in lines])
    index = [f"| [{name}](#{link}) | {acts} | {idea} |" for (name, acts, idea), link in zip(lines, links, strict=True)]
    return "\n".join(
        [
            _INTRO + _parameter_table(shared_parameters()),
            "\n".join(["| method | acts | idea |", "| --- | --- | --- |", *index]) + "\n",
            *map(card, entries),
            *map(published_card, published),
        ]
    )


def card(entry: Entry) -> str:
    """Return one method's section."""
    method: type[Pruner] = entry.target
    own, deviations = parameters(method), entry.metadata.get("deviations", ())
    found = len(entry.metadata.get("releases", ()))
    facts = {
        "Paper": link_to_paper(entry.metadata.get("paper", "")),
        "Released code": link_to_repository(entry.metadata.get("code", "")),
        "Its licence": licence(entry.metadata),
        "Source": f"[{_source(method)}](../{_source(method)})",
        "Acts": describe_place(method),
        "Tokens": describe_count(method),
        "Needs beside the tokens": ", ".join(needs(method)) or "nothing",
        "[Can be served](serving.md)": served(method),
        "What its release does and its paper does not mention": f"[{found}](releases.md)" * bool(found),
    }
    listed = [f"{name}: {fact}" for name, fact in facts.items() if fact]
    parts = [f"## {entry.name}", description(method), _bullets(listed)]
    parts += [_parameter_table(own).rstrip()] * bool(own)
    parts += ["**Deviations:**", _bullets(deviations)] * bool(deviations)
    return "\n\n".join(parts) + "\n"


def published_card(one: PublishedName) -> str:
    """Return the section of a published name."""
    settings = " ".join(f"{name}={value}" for name, value in one.settings.items())
    spelled = f"`--method {one.means}" + f" --set {settings}" * bool(settings) + "`"
    facts = {
        "Paper": link_to_paper(one.metadata.get("paper", "")),
        "Released code": link_to_repository(one.metadata.get("code", "")),
        "Its licence": licence(one.metadata),
        "The same as": f"{spelled}, under which it is stored and shown" if one.means != one.name else "",
    }
    listed = [f"{name}: {fact}" for name, fact in facts.items() if fact]
    parts = [f"## {one.name}", one.summary, _bullets(listed)]
    return "\n\n".join([*parts, "**Deviations:**", _bullets(one.metadata["deviations"])]) + "\n"


def needs(method: type[Pruner]) -> list[str]:
    """List what a method reads beside the projected tokens."""
    tower = method.vision_layers is not Pruner.vision_layers or "vision_layer" in method.__dataclass_fields__
    return [
        *["LLM attention"] * (method.llm_attention or method.upcoming_attention),
        *["states inside the language model"] * (method.looks is not Pruner.looks),
        *["vision tower"] * tower,
        *["question"] * method.__new__(method).prompt_aware,  # needs no fields
    ]


def served(method: type[Pruner]) -> str:
    """Return whether a serving engine can run a method, with the default of its fields, and why, or what it needs."""
    if any(f.default is f.default_factory is dataclasses.MISSING for f in dataclasses.fields(method) if f.init):
        return "depends on its fields"
    return str(servable(method().with_ratio(RATIO), DEPTH))


def served_as(one: PublishedName) -> str:
    """Return the same for what a published name means."""
    if "+" in one.means:
        return "no: of several methods the later ones prune inside the language model"
    return served(METHODS.get(one.means))


def description(method: type) -> str:
    """Return a class docstring without its section "Args:", each paragraph in one line."""
    text = inspect.cleandoc(method.__doc__ or "").partition("\n\nArgs:\n")[0]
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def meanings(method: type) -> dict[str, str]:
    """Return field -> text from the sections "Args:" of a class and its bases, where the class itself comes first."""
    found: dict[str, str] = {}
    for owner in reversed(method.__mro__):
        name = ""
        for line in dedent(inspect.cleandoc(owner.__doc__ or "").partition("\n\nArgs:\n")[2]).splitlines():
            if line.startswith(" "):
                found[name] += f" {line.strip()}"
            else:
                name, _, found[name] = line.partition(": ")
    return found


def parameters(method: type[Pruner]) -> list[Parameter]:
    """Return the fields that a method adds to those of every method."""
    shared = {field.name for field in dataclasses.fields(Pruner)}
    return [parameter for parameter in _parameters(method) if parameter.name not in shared]


def shared_parameters() -> list[Parameter]:
    """Return the fields of every method."""
    return _parameters(Pruner)


def _parameters(method: type) -> list[Parameter]:
    kinds, texts = field_types(method), meanings(method)
    fields = [field for field in dataclasses.fields(method) if field.init]
    return [
        Parameter(f.name, _kind(kinds.get(f.name, Any)), _literal(f.default), texts.get(f.name, "")) for f in fields
    ]


def describe_place(method: type[Pruner]) -> str:
    """Describe where a method acts, with the layers of an example."""
    layers = [stage.layer for stage in _stages(method)]
    if layers in ([], [0]):
        return ACTS[method.kind]
    every = layers == list(range(layers[0], DEPTH))
    named = f"every layer from {layers[0]} on" if every else f"layer {', '.join(map(str, layers))}"
    return f"{ACTS[method.kind]}, at ratio 1/3 before {named} of {DEPTH}"


def describe_count(method: type[Pruner]) -> str:
    """Describe how many tokens a method keeps."""
    if method.kind == "input":
        return "as many as the sizes of images allow, at most the ratio's where one is small enough"
    stages = _stages(method)
    if not stages:
        return "all"
    exact = all(stage.pruner.exact for stage in stages)
    return "exactly as many as the ratio gives" if exact else "a number that the method chooses; the ratio is nominal"


def link_to_paper(text: str) -> str:
    """Link to arXiv where an id is given."""
    number = text.removeprefix("arXiv ")
    return f"[{text}](https://arxiv.org/abs/{number})" if number != text else text


def link_to_repository(name: str) -> str:
    """Link to a repository given as owner/name."""
    return f"[{name}](https://github.com/{name})" if name else ""


def licence(metadata: Mapping[str, Any]) -> str:
    """Return the licence of a method's released code, "" without any code."""
    found: str = metadata.get("licence", UNSTATED)
    return found if metadata.get("code") else ""


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)


def _parameter_table(rows: list[Parameter]) -> str:
    lines = [f"| `{p.name}` | {p.kind} | `{p.default}` | {p.meaning} |".replace("|  |", "| |") for p in rows]
    return "\n".join(["| parameter | type | default | meaning |", "| --- | --- | --- | --- |", *lines]) + "\n"


def _kind(kind: Any) -> str:
    """Describe a type without "|", which would end a table's cell."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([_kind(parts[0]), *(str(bound) for bound in parts[1:] if isinstance(bound, Bound))])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in parts)
    if origin in (Union, UnionType):
        return " or ".join(map(_kind, parts))
    if origin is tuple:
        return f"`tuple` of {', '.join(_kind(part) for part in parts if part is not ...)}"
    return f"`{'None' if kind is type(None) else getattr(kind, '__name__', kind)}`"


def _literal(default: Any) -> str:
    """Write a default as `--set` takes it."""
    return "null" if default is None else str(list(default)) if isinstance(default, tuple) else str(default)


def _source(method: type[Pruner]) -> str:
    """Return the path of the defining file in the repository."""
    path = Path(inspect.getsourcefile(method) or "").resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def anchors(names: list[str]) -> list[str]:
    """Return the ids that GitHub gives headings: signs are dropped, and repeated ids are numbered."""
    plain = ["".join(c for c in name if c.isalnum() or c in "-_") for name in names]
    return [f"{name}-{plain[:i].count(name)}" if name in plain[:i] else name for i, name in enumerate(plain)]


def _stages(method: type[Pruner]) -> tuple[Stage, ...]:
    """Return a method's pruning points in the example."""
    return method().with_ratio(RATIO).schedule(DEPTH)
