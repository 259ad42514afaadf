"""Resolve `--model`: a name in configs/models.yaml, a hub id or a folder. Nothing is loaded here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from uniprune.errors import UserError, unknown
from uniprune.modeling.image_settings import ImagePolicy, ImageSettings
from uniprune.utils.paths import ROOT
from uniprune.utils.yaml_file import read_yaml

CATALOG = ROOT / "configs" / "models.yaml"
HUB_ID = re.compile(r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)?([\w-][\w.-]*/[\w.-]+?)(?:/tree/main)?/?")
"""A hub id, or the address of its page."""


class ModelEntry(ImageSettings):
    """Source of a model and defaults of its evaluations. Its image settings are those of the papers' harness."""

    name: str
    """Name on the command line."""
    source: str
    """Hub id, or absolute path of a folder."""
    family: str | None = None
    """Expected `config.model_type`; None for any."""
    suite: str = "ten"
    """Default benchmarks."""
    prompts: Literal["benchmark", "family"] = "benchmark"
    """Default prompt policy: the benchmark's prompts or the family's own."""
    images: ImagePolicy = "checkpoint"
    """Default policy of image processing; "paper" if there are image settings."""
    benchmarks: dict[str, ImageSettings] = Field(default_factory=dict)
    """Benchmark, * as a wildcard -> image settings in place of the model's; of several that match, later ones win."""
    like: str | None = None
    """Entry whose settings `--like` took; None for an entry of configs/models.yaml itself."""

    @model_validator(mode="before")
    @classmethod
    def _default_images(cls, fields: dict[str, Any]) -> dict[str, Any]:
        known = any(fields.get(name) for name in (*ImageSettings.model_fields, "benchmarks"))
        return {"images": "paper" if known else "checkpoint", **fields}

    @property
    def folder(self) -> Path | None:
        """The folder; None for a hub id."""
        path = Path(self.source)
        return path if path.is_absolute() else None

    def image_settings(self, benchmark: str = "") -> ImageSettings:
        """Return the settings of rows of a benchmark under the entry's policy; the model's without a benchmark."""
        if self.images == "checkpoint":
            return ImageSettings()
        settings = ImageSettings().joined(self)
        for pattern, more in self.benchmarks.items():
            if fnmatchcase(benchmark, pattern):
                settings = settings.joined(more)
        return settings

    def with_images(self, policy: ImagePolicy | None) -> ModelEntry:
        """Return the entry under a policy; None is its own.

        Raises:
            UserError: the papers' settings for it are not known.
        """
        if policy == "paper" and self.images != "paper" and not (self.plain() or self.benchmarks):
            raise UserError(
                f"no paper's image settings are known for model {self.name!r}; use --images checkpoint, or give "
                "--like NAME to take those of an entry of configs/models.yaml"
            )
        return self if policy is None else self.model_copy(update={"images": policy})

    def with_source(self, other: ModelEntry) -> ModelEntry:
        """Return the settings of this entry with the name and source of another."""
        return self.model_copy(update={"name": other.name, "source": other.source, "like": self.name})


def catalog(path: Path = CATALOG) -> dict[str, ModelEntry]:
    """Read the entries of a models file by name; folders that start with ./ are relative to the folder above configs/.

    Raises:
        UserError: the file is missing or not in the expected form.
    """
    try:
        table = read_yaml(path) or {}
        entries = {name: ModelEntry(name=name, **_fields(name, table)) for name in table}
    except (TypeError, ValidationError, AttributeError, LookupError) as error:
        raise UserError(f"{path} is not a list of models: {error}") from error
    root = path.resolve().parent.parent
    for name, entry in entries.items():
        if entry.source.startswith("./"):
            entries[name] = entry.model_copy(update={"source": str(root / entry.source)})
    return entries


def _fields(name: str, table: Mapping[str, Any], seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the fields of an entry, those of the entry it is like included.

    Raises:
        LookupError: there is no such entry, or it is like itself.
    """
    if name not in table or name in seen:
        raise LookupError(f"like: {name!r} is {'a circle' if name in seen else 'no entry'}")
    fields: dict[str, Any] = dict(table[name])
    like = fields.pop("like", None)
    return fields if like is None else {**_fields(like, table, (*seen, name)), **fields}


def find_model(name: str, like: str | None = None) -> ModelEntry:
    """Return the entry of `--model NAME`, with the settings of the entry `like` if given.

    A folder or hub id that an entry points to is that entry, so that all spellings run alike.

    Raises:
        UserError: neither a known name nor a folder, and no hub id by its form; or several entries have this source.
    """
    entries = catalog()
    entry = _find(name, entries)
    if like is None:
        return entry
    other = _find(like, entries)
    if other.name not in entries:
        raise UserError(f"--like: {unknown('model', like, entries)}")
    return other.with_source(entry)


def unused_settings(entry: ModelEntry, family: str, prompts: str) -> str | None:
    """Return the remark about a model that is no entry and runs without the settings of its family's entries.

    Args:
        entry: the model, under its policy of images.
        family: its `config.model_type`.
        prompts: the prompt policy it runs with.

    Returns:
        None if it has settings of its own or of another entry, or if its family's entries have no others.
    """
    entries = catalog()
    if entry.like is not None or entry.name in entries:
        return None
    others = [one for one in entries.values() if one.family == family]
    others = [one for one in others if (one.prompts, one.images) != (prompts, entry.images)]
    if not others:
        return None
    settings = " or ".join(dict.fromkeys(f"prompts={one.prompts}, images={one.images}" for one in others))
    return (
        f"{entry.name} runs with prompts={prompts}, images={entry.images}; models of its family in configs/models.yaml "
        f"({', '.join(one.name for one in others)}) have {settings}: --like NAME takes these settings"
    )


def _find(name: str, entries: Mapping[str, ModelEntry]) -> ModelEntry:
    """Return the entry of a name, folder or hub id; a new one if there is none."""
    if name in entries:
        return entries[name]
    folder = Path(name).expanduser()
    if folder.is_dir():
        same = [e for e in entries.values() if e.folder is not None and e.folder.resolve() == folder.resolve()]
        found = ModelEntry(name=name, source=str(folder.resolve()))
    elif (hub := HUB_ID.fullmatch(name)) is not None:
        # The hub ignores case; its cache does not, so the entry's spelling is used.
        same = [e for e in entries.values() if e.folder is None and e.source.lower() == hub[1].lower()]
        found = ModelEntry(name=hub[1], source=hub[1])
    else:
        error = unknown("model", name, entries)
        raise UserError(f"{error}; or give a hub id (owner/name) or the path of an existing folder")
    if len(same) > 1:
        raise UserError(
            f"model {name!r} is the source of several entries in configs/models.yaml, whose settings may differ; give "
            f"one of their names: {', '.join(one.name for one in same)}"
        )
    return same[0] if same else found
