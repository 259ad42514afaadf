"""No code of a checkpoint runs, and nothing waits for an answer on the terminal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from uniprune.errors import UserError
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import Placement, outline

MARK = "it_ran"
CODE = f"""
open({MARK!r}, "w").close()
from transformers import PretrainedConfig
class Config(PretrainedConfig):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as the original InternVL repositories are: a model type of its own, with its Python file."""
    folder = tmp_path / "InternVL3-8B"
    shutil.copytree(ROOT / "models" / "tiny" / "internvl", folder)
    (folder / "configuration_own.py").write_text(CODE)
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"model_type": "own_chat", "auto_map": {"AutoConfig": "configuration_own.Config"}}
    file.write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_it_is_refused_and_the_converted_checkpoint_named(folder: Path) -> None:
    entry = ModelEntry(name="own", source=str(folder))
    with pytest.raises(UserError, match=r"Python code of its own, which is never run.*OpenGVLab/InternVL3-8B-hf"):
        outline(entry, Placement("float32", "sdpa", "cpu"))


@pytest.mark.end_to_end
def test_not_even_if_the_terminal_says_yes(folder: Path, tmp_path: Path) -> None:
    words = ["--model", str(folder), "--method", "none", "--suite", "mini", "--limit", "1"]
    command = [sys.executable, str(ROOT / "run.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, input="y\n", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "which is never run" in done.stderr
    assert not list(tmp_path.rglob(MARK))


def test_an_unknown_family_names_a_checkpoint_of_the_right_format(tmp_path: Path) -> None:
    folder = tmp_path / "llava-1.5-7b"
    shutil.copytree(ROOT / "models" / "tiny" / "llava", folder)
    file = folder / "config.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"model_type": "llava"', '"model_type": "bert"'))
    with pytest.raises(UserError, match=r"unknown model family 'bert'.*llava-hf/llava-1.5-7b-hf"):
        outline(ModelEntry(name="old", source=str(folder)), Placement("float32", "sdpa", "cpu"))
