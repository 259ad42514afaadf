"""Two processes under `accelerate launch` prune their common batch as one and learn what one process learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.helpers.paths import ROOT
from tests.helpers.programs import Program
from uniprune.models.tiny.language import FOLDER
from uniprune.synthetic.letters import training_set

pytestmark = pytest.mark.end_to_end

pytest.importorskip("peft")


def tune(folder: Path, launcher: list[str], **fields: Any) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    folder.mkdir()
    data = folder / "data.json"
    data.write_text(json.dumps(training_set(640)[:32]))
    file = folder / "file.yaml"
    common = {"model": str(FOLDER), "data": [str(data)], "cutoff": 64, "epochs": 1, "sample_ratio": 0.25, "rate": 0.005,
              "probe": 4, "pairs": [{"samples": "q", "tokens": "q"}]}  # fmt: skip
    file.write_text(yaml.safe_dump(common | fields))
    words = ["tune", str(file), "--output", str(folder / "out")]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program = started(launcher, words, environment) if launcher else Program(words, environment=environment)
    shown, printed = program.communicate(timeout=280)
    assert program.returncode == 0, printed[-3000:]
    assert shown.count("report:") == 1
    (steps,) = (folder / "out").glob("file/*/steps.jsonl")
    lines = [json.loads(line) for line in steps.read_text().splitlines()]
    return [line for line in lines if "batches" in line], load_file(
        steps.parent / "model" / "adapter_model.safetensors"
    )


def started(launcher: list[str], words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [*launcher, str(ROOT / "run.py"), *words]
    return subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, env=os.environ | environment)


@pytest.mark.slow
def test_two_processes_prune_one_batch(tmp_path: Path) -> None:
    # On one machine without a GPU, accelerate starts several processes by torchrun, which it calls "multi_gpu".
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
              "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip
    one, alone = tune(tmp_path / "one", [], batch=8, accumulation=2)
    two, together = tune(tmp_path / "two", launch, batch=4, accumulation=2)
    assert len(one) == len(two) == 2
    for single, double in zip(one, two, strict=True):
        assert [len(batch["index"]) for batch in double["batches"]] == [8, 8]
        assert [len(batch["kept"]) for batch in double["batches"]] == [2, 2]
        for a, b in zip(single["batches"], double["batches"], strict=True):
            assert {k: a.get(k) for k in ("index", "kept", "removed", "quadrant")} == {
                k: b.get(k) for k in ("index", "kept", "removed", "quadrant")
            }
        assert single["loss"] == pytest.approx(double["loss"], rel=1e-4)
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor, together[name], atol=1e-4, rtol=1e-3)
