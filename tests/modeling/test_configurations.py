"""Checkpoints whose config.json has another form than their family's: refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uniprune.errors import UserError
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, Placement, load

Checkpoint = Callable[[str], Path]


def load_folder(folder: Path) -> LoadedModel:
    return load(ModelEntry(name=str(folder), source=str(folder)), Placement("float32", "sdpa", "cpu"))


def changed(source: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Copy a checkpoint whose configuration `change` has edited."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def other_rotation(config: dict[str, Any]) -> None:
    config["text_config"]["rope_parameters"] = {"rope_type": "spiral"}


def language_model(config: dict[str, Any]) -> None:
    del config["vision_config"]
    config["model_type"] = "llama"


TEXT_ONLY = (
    r"unknown model family 'llama' \(it has no vision_config.*registered families are .*llava, llava_next.*such as "
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (language_model, TEXT_ONLY),
        (lambda config: config.pop("model_type"), "model folder .* cannot be loaded: .*model_type"),
        (lambda config: config["text_config"].update(model_type="gpt9"), "model folder .* cannot be loaded: .*gpt9"),
        (other_rotation, "cannot be loaded: .*spiral"),
        (lambda config: config["text_config"].update(num_hidden_layers="six"), "cannot be loaded: .*num_hidden_layers"),
        (lambda config: config["text_config"].update(num_attention_heads=0), "cannot be loaded: ZeroDivisionError"),
        (lambda config: config.update(text_config=[1]), "cannot be loaded"),
        (
            lambda config: config.pop("vision_config"),
            r"config\.json .* has no vision_config; expected the fields of",
        ),
        (lambda config: config.pop("text_config"), r"config\.json .* has no text_config; expected the fields of"),
        (lambda config: config.pop("image_token_index"), r"image_token_id in config\.json is 32000"),
    ],
)
def test_a_configuration_of_another_form_is_one_line(
    change: Callable[[dict[str, Any]], object], message: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_folder(changed(checkpoint("llava"), tmp_path / "model", change))
    assert "\n" not in str(caught.value)


def test_a_configuration_that_is_no_json_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("llava"), folder)
    for text in ("{", "", "[]", "null"):
        (folder / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"model folder .*model cannot be loaded"):
            load_folder(folder)
