"""Models with random weights and published dimensions: costs and times do not depend on the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from uniprune.errors import UserError, unknown
from uniprune.modeling.catalog import catalog
from uniprune.utils.paths import ROOT
from uniprune.utils.torchvision_compat import ensure_torchvision
from uniprune.utils.yaml_file import read_yaml

ARCHITECTURES = ROOT / "configs" / "architectures.yaml"


def architectures(path: Path = ARCHITECTURES) -> dict[str, Mapping[str, Any]]:
    """Read the table of published dimensions: name -> arguments of the Hugging Face configuration.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        table = read_yaml(path)
        return {name: {**fields, "model_type": fields["model_type"]} for name, fields in table.items()}
    except (TypeError, AttributeError, KeyError) as error:
        raise UserError(f"{path} is not a table of configurations with a model_type each: {error}") from error


def configuration(name: str) -> Any:
    """Return the Hugging Face configuration of a name in the table, of a catalogued folder, or of any folder.

    Raises:
        UserError: it is none of these, or its configuration is not valid.
    """
    from transformers import AutoConfig

    known = architectures()
    entries = catalog().values()
    folders = {entry.name: entry.folder for entry in entries if entry.folder is not None}
    name = next((entry.name for entry in entries if entry.source == name and entry.name in known), name)
    try:
        if name in known:
            fields = dict(known[name])
            return AutoConfig.for_model(fields.pop("model_type"), **fields)
        folder = folders.get(name, Path(name).expanduser())
        if not (folder / "config.json").is_file():
            raise unknown("architecture", name, {*known, *folders})
        return AutoConfig.from_pretrained(folder)
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"the configuration of {name!r} is not valid: {' '.join(str(error).split())[:300]}") from error


def random_model(name: str, dtype: torch.dtype, attention: str, device: str | torch.device) -> Any:
    """Build a model in evaluation mode with random weights, always the same; none on the device "meta".

    Raises:
        UserError: as `configuration`.
    """
    ensure_torchvision()
    from transformers import AutoModelForImageTextToText

    config, device = configuration(name), torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attention)
    return model.eval()
