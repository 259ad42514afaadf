"""What `--model` may say: a name in configs/models.yaml, a hub id or a folder. Light: nothing is loaded here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from uniprune.errors import UserError, unknown
from uniprune.utils.paths import ROOT

CATALOG = ROOT / "configs" / "models.yaml"


class ModelEntry(BaseModel):
    """Where a model comes from and how it is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """What the user calls it."""
    source: str
    """Hub id, or absolute path of a folder."""
    suite: str = "ten"
    """Benchmarks asked by default."""
    prompts: Literal["benchmark", "family"] = "benchmark"
    """Who words the prompts, unless the user says."""
    image_processor: dict[str, Any] = Field(default_factory=dict)
    """Image processor settings that differ from the checkpoint's own."""

    @property
    def folder(self) -> Path | None:
        """The folder, when the source is one rather than a hub id."""
        path = Path(self.source)
        return path if path.is_absolute() else None


def catalog(path: Path = CATALOG) -> dict[str, ModelEntry]:
    """The entries of a models file by name, folders made absolute.

    Raises:
        UserError: the file is missing or not in the expected form.
    """
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        entries = {name: ModelEntry(name=name, **fields) for name, fields in table.items()}
    except (OSError, yaml.YAMLError, TypeError, ValidationError, AttributeError) as error:
        raise UserError(f"{path} is not a list of models: {error}") from error
    root = path.resolve().parent.parent
    for name, entry in entries.items():
        if entry.source.startswith("./"):
            entries[name] = entry.model_copy(update={"source": str(root / entry.source)})
    return entries


def find_model(name: str) -> ModelEntry:
    """The entry `--model NAME` means.

    A folder that an entry points to is that entry, so that both spellings ask the same benchmarks.

    Raises:
        UserError: neither a known name nor a folder, and not of the form of a hub id.
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
