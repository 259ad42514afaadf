"""Resolve `--model`: a name in configs/models.yaml, a hub id or a folder. Nothing is loaded here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from uniprune.errors import UserError, unknown
from uniprune.utils.paths import ROOT
from uniprune.utils.yaml_file import read_yaml

CATALOG = ROOT / "configs" / "models.yaml"


class ModelEntry(BaseModel):
    """Source of a model and defaults of its evaluations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Name on the command line."""
    source: str
    """Hub id, or absolute path of a folder."""
    suite: str = "ten"
    """Default benchmarks."""
    prompts: Literal["benchmark", "family"] = "benchmark"
    """Default prompt policy: the benchmark's prompts or the family's own."""
    image_processor: dict[str, Any] = Field(default_factory=dict)
    """Image processor settings that differ from the checkpoint's own."""

    @property
    def folder(self) -> Path | None:
        """The folder; None for a hub id."""
        path = Path(self.source)
        return path if path.is_absolute() else None


def catalog(path: Path = CATALOG) -> dict[str, ModelEntry]:
    """Read the entries of a models file by name; folders that start with ./ are relative to the folder above configs/.

    Raises:
        UserError: the file is missing or not in the expected form.
    """
    try:
        table = read_yaml(path) or {}
        entries = {name: ModelEntry(name=name, **fields) for name, fields in table.items()}
    except (TypeError, ValidationError, AttributeError) as error:
        raise UserError(f"{path} is not a list of models: {error}") from error
    root = path.resolve().parent.parent
    for name, entry in entries.items():
        if entry.source.startswith("./"):
            entries[name] = entry.model_copy(update={"source": str(root / entry.source)})
    return entries


def find_model(name: str) -> ModelEntry:
    """Return the entry of `--model NAME`.

    A folder that an entry points to is that entry, so that both spellings run the same benchmarks.

    Raises:
        UserError: neither a known name nor a folder, and no hub id by its form.
    """
    entries = catalog()
    if name in entries:
        return entries[name]
    folder = Path(name).expanduser()
    if folder.is_dir():
        same = (e for e in entries.values() if e.folder is not None and e.folder.resolve() == folder.resolve())
        return next(same, ModelEntry(name=name, source=str(folder.resolve())))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith((".", "/")):
        return ModelEntry(name=name, source=name)
    error = unknown("model", name, entries)
    raise UserError(f"{error}; or give a hub id (owner/name) or the path of an existing folder")
