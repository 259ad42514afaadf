"""A model whose logits are no numbers makes no prediction: the run fails by name, nothing is stored or compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.helpers.paths import ROOT
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.results.predictions import prediction_lines

pytestmark = pytest.mark.end_to_end

LAYER = 3


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that leaves the range of float16 in one MLP, and predicts as before in float32 and bfloat16."""
    folder = tmp_path_factory.mktemp("overflow") / "model"
    shutil.copytree(ROOT / "models" / "tiny" / "llava", folder)
    weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    up = next(k for k in weights if k.endswith(f"layers.{LAYER}.mlp.up_proj.weight") and "language" in k)
    weights[up] *= 2.0**14
    weights[up.replace("up_proj", "down_proj")] /= 2.0**14
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def words(model: Path, dtype: str, out: Path) -> list[str]:
    return ["--model", str(model), "--dtype", dtype, "--method", "none", "--data", "mini-mmbench",
            "--limit", "4", "--data-dir", str(out / "data"), "--output", str(out)]  # fmt: skip


def test_the_run_fails_with_layer_precision_and_remedy(
    overflowing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(overflowing, "float16", tmp_path)) == 2
    told = capsys.readouterr().err
    assert "logits are NaN or infinite in float16" in told
    assert f"leave decoder layer {LAYER} of" in told
    assert "use --dtype bfloat16 or float32" in told
    assert [line for file in tmp_path.glob("*/*.jsonl") for line in file.read_text().splitlines()] == []


def test_another_precision_runs(overflowing: Path, tmp_path: Path) -> None:
    assert main(words(overflowing, "float32", tmp_path)) == 0


def test_a_stored_line_that_is_no_number_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pope.jsonl"
    first = {"ids": [1], "logs": [float("nan")], "rest": 0.0}
    file.write_text(json.dumps({"index": "0", "prediction": "yes", "first": first}) + "\n")
    with pytest.raises(UserError, match="line 1 is not a stored prediction"):
        prediction_lines(file).read()
