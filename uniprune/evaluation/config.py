"""Sweep files: a grid of runs in YAML as blocks, each the cross product of its lists, like one `run` command line.

title: Two methods at two ratios
paper: arXiv 0000.00000          # optional
runs:
  - model: model-a               # one, or a list; so everywhere
    method: [method-a, {name: method-b, layer: 3, set: {field: value}}]
    ratio: [0.25, 0.5]
    data: [benchmark-a]          # or suite: name
    protocol: site
    question: seen               # or hidden: methods decide before they know it
    seed: [0, 1, 2]              # several for random methods only: a block of their own
    limit: null
    like: null                   # for hub ids and folders: an entry of configs/models.yaml with the settings to use
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from uniprune.errors import UserError
from uniprune.evaluation.method_spec import MethodSpec, setting_text
from uniprune.evaluation.prompts import Question
from uniprune.utils.yaml_file import read_model


@dataclass(frozen=True)
class RunSpec:
    """One run as specified by a user.

    Attributes:
        model: value of `--model`.
        choice: the method with ratio, layer, seed and fields, normalised.
        data: benchmarks by name or pattern; None for those of `suite`.
        suite: None for the model's own.
        protocol: as in `RunOptions`.
        limit: as in `RunOptions`.
        question: as in `RunOptions`.
        like: value of `--like`: the entry of configs/models.yaml whose settings the model takes; None for its own.
    """

    model: str
    choice: MethodSpec
    data: tuple[str, ...] | None = None
    suite: str | None = None
    protocol: Literal["site", "average"] = "site"
    limit: int | None = None
    like: str | None = None
    question: Question = "seen"


def _listed(value: Any) -> Any:
    """Return a single value as a list of one."""
    return value if isinstance(value, list) else [value]


def _named(value: Any) -> Any:
    """Return a bare method name in its long form."""
    return {"name": value} if isinstance(value, str) else value


class _Strict(BaseModel):
    """A model that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), populate_by_name=True)


class MethodConfig(_Strict):
    """A method in a block: a name, or a name with its own layer and fields."""

    name: str
    """Registered name, or several joined by "+"."""
    layer: int | None = None
    """As `--layer`."""
    fields: dict[str, Any] = Field(default={}, alias="set")
    """As `--set`: "field" or "part.field" -> value."""

    def choice(self, ratio: float, seed: int) -> MethodSpec:
        """Return the method at a ratio and seed, normalised.

        Raises:
            UserError: an unknown method or field, or a value that the method refuses.
        """
        texts = {key: setting_text(value) for key, value in self.fields.items()}
        spec = MethodSpec(self.name, ratio, self.layer, seed, texts).normalised()
        spec.pruner()
        return spec


class Block(_Strict):
    """Runs that are the cross product of models, methods, ratios and seeds."""

    model: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
    """Names in configs/models.yaml, hub ids or folders."""
    method: Annotated[
        list[Annotated[MethodConfig, BeforeValidator(_named)]], BeforeValidator(_listed), Field(min_length=1)
    ]
    """Methods."""
    ratio: Annotated[list[float], BeforeValidator(_listed), Field(min_length=1)] = [1.0]
    """Keep ratios."""
    data: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)] | None = None
    """Benchmarks, patterns allowed."""
    suite: str | None = None
    """All benchmarks of a suite, instead of `data`."""
    protocol: Literal["site", "average"] = "site"
    """Reach of the ratio: at the pruning point, or over all layers."""
    question: Question = "seen"
    """Knowledge of the methods: the whole prompt, or nothing behind the images, which then come first."""
    seed: Annotated[list[int], BeforeValidator(_listed), Field(min_length=1)] = [0]
    """Seeds of random choices."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """First rows of each benchmark only."""
    like: str | None = None
    """Entry of configs/models.yaml whose settings the models take."""

    @model_validator(mode="after")
    def _one_choice_of_data(self) -> Block:
        if self.data is not None and self.suite is not None:
            raise ValueError("give data or suite, not both")
        return self

    def cells(self) -> Iterator[RunSpec]:
        """Yield the block's runs.

        Raises:
            UserError: an unknown method or field.
        """
        data = tuple(self.data) if self.data is not None else None
        for model, method, ratio, seed in product(self.model, self.method, self.ratio, self.seed):
            yield RunSpec(
                model,
                method.choice(ratio, seed),
                data,
                self.suite,
                self.protocol,
                self.limit,
                self.like,
                self.question,
            )


class SweepFile(_Strict):
    """A sweep file."""

    title: str
    """Purpose of the runs."""
    paper: str | None = None
    """Source, if the grid is a paper's."""
    runs: Annotated[list[Block], Field(min_length=1)]
    """The blocks."""
    printed: dict[str, Any] | None = None
    """Numbers that the paper prints, for `compare`; uniprune/reports/papers/literature.py has the form."""

    def cells(self) -> list[RunSpec]:
        """Return all runs in file order, each once.

        Raises:
            UserError: an unknown method or field.
        """
        unique: list[RunSpec] = []
        for cell in (cell for block in self.runs for cell in block.cells()):
            if cell not in unique:
                unique.append(cell)
        return unique


def read_sweep(path: Path) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        UserError: it is missing or has another form; the message names the field.
    """
    if not path.exists():
        raise UserError(f"sweep file {path} does not exist")
    return read_model(path, SweepFile, "uniprune/evaluation/config.py shows the form")
