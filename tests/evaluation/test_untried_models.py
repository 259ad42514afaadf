"""Checkpoints with parts that no test of their family runs on: they run, and their numbers carry a remark."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import PLUGINS
from uniprune.cli.main import main
from uniprune.engine import prune
from uniprune.errors import UnsupportedError
from uniprune.methods.divprune import DivPrune
from uniprune.modeling.tiny import TEXT, tiny_model
from uniprune.registry import MODELS
from uniprune.results.remarks import row_notes
from uniprune.results.store import Store

pytestmark = pytest.mark.end_to_end

TRIED = ", ".join(MODELS.get("llava").tried["text model"])
NEVER = f"never tried: text model smollm3 (tried: {TRIED}) in family llava"


@pytest.fixture(scope="module")
def smollm3(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA on SmolLM3, whose parameters have Llama's names."""
    folder = tmp_path_factory.mktemp("smollm3") / "model"
    shutil.copytree(checkpoint("llava"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"model_type": "smollm3", "sliding_window": None}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_numbers_of_a_model_that_was_never_tried_carry_the_remark(
    smollm3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = ["--plugin", str(PLUGINS / "small_benchmark.py"), "--model", str(smollm3), "--method", "none", "fastv"]
    words += ["--ratio", "0.25", "--data", "small", "--limit", "2", "--output", str(output), "--device", "cpu"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert NEVER in " ".join(printed.err.split())
    assert NEVER in " ".join(printed.out.split())
    records = list(Store(output).records())
    assert len(records) == 2
    assert all(NEVER in str(record.model.untried) for record in records)
    lines = list(csv.DictReader((output / "leaderboard.csv").open(encoding="utf-8")))
    assert all(NEVER in line["remarks"] for line in lines)
    [note] = [note for note in row_notes((record, "small") for record in records) if NEVER in note]
    assert note.startswith(str(smollm3))
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"title: t\nruns:\n  - {{model: {smollm3}, method: none, data: small, limit: 2}}\n")
    assert main(["sweep", str(grid), "--dry-run", *words[:2], *words[-4:]]) == 0
    assert NEVER in " ".join(capsys.readouterr().out.split())


def test_times_of_a_model_that_was_never_tried_carry_the_remark(
    smollm3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "--model", str(smollm3), "--method", "none", "--repeats", "1", "--warmup", "0"]
    assert (
        main([*words, "--output", str(tmp_path / "b.jsonl"), "--csv", str(tmp_path / "b.csv"), "--device", "cpu"]) == 0
    )
    assert NEVER in " ".join(capsys.readouterr().out.split())
    [line] = csv.DictReader((tmp_path / "b.csv").open(encoding="utf-8"))
    assert NEVER in line["never tried"]


def test_several_feature_layers_are_named() -> None:
    tiny = tiny_model("llava")
    config = tiny.config(TEXT)
    config.vision_feature_layer = [-2, -1]
    tiny.config = lambda text: config  # type: ignore[method-assign]
    assert "never tried: feature layers several (tried: one) in family llava;" in str(tiny.adapter.untried())


def test_a_tower_that_the_family_cannot_describe_is_refused_by_name() -> None:
    from transformers import AutoModelForImageTextToText, Dinov2Config, LlamaConfig, LlavaConfig

    tower = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    config: Any = LlavaConfig(vision_config=tower, text_config=LlamaConfig(**TEXT), image_token_index=299)
    model = AutoModelForImageTextToText.from_config(config)
    expected = r"family 'llava' can describe .*tried with text model .*llama.*; tower clip.*this one has .*dinov2"
    with pytest.raises(UnsupportedError, match=expected):
        prune(model, DivPrune(ratio=0.5))
