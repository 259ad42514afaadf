"""Two processes, placed as by `accelerate launch`, prune their batch as one and learn what one process learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.helpers.programs import Program, places
from uniprune.models.tiny.language import FOLDER
from uniprune.synthetic.letters import training_set
from uniprune.tuning.pruning import units

pytestmark = pytest.mark.end_to_end

pytest.importorskip("peft")


def tune(folder: Path, by: list[dict[str, str]], **fields: Any) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Tune in one process per place of `by`: the environment variables that a launcher sets."""
    folder.mkdir()
    data = folder / "data.json"
    data.write_text(json.dumps(training_set(640)[:32]))
    file = folder / "file.yaml"
    common = {"model": str(FOLDER), "data": [str(data)], "cutoff": 64, "epochs": 1, "sample_ratio": 0.25, "rate": 0.005,
              "probe": 4, "unit": "global", "pairs": [{"samples": "q", "tokens": "q"}]}  # fmt: skip
    file.write_text(yaml.safe_dump(common | fields))
    words = ["tune", str(file), "--output", str(folder / "out")]
    programs = [Program(words, environment={"OMP_NUM_THREADS": "1", **place}) for place in by]
    ends = [program.communicate(timeout=280) for program in programs]
    assert [program.returncode for program in programs] == [0] * len(by), ends[0][1][-3000:]
    assert sum(shown.count("report:") for shown, _ in ends) == 1
    (steps,) = (folder / "out").glob("file/*/steps.jsonl")
    lines = [json.loads(line) for line in steps.read_text().splitlines()]
    return [line for line in lines if "batches" in line], load_file(
        steps.parent / "model" / "adapter_model.safetensors"
    )


def test_units_are_those_of_one_process_or_of_all() -> None:
    assert [*map(list, units(8, 2, 2, joined=False))] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [*map(list, units(8, 2, 2, joined=True))] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    # At the end of an epoch a process has fewer: what is left of it is not joined with another's.
    assert [*map(list, units(6, 2, 2, joined=False))] == [[0, 1], [2], [3, 4], [5]]
    assert [*map(list, units(5, 2, 1, joined=True))] == [[0, 1], [2, 3], [4]]


@pytest.mark.slow
def test_two_processes_prune_one_batch(tmp_path: Path) -> None:
    one, alone = tune(tmp_path / "one", [{}], batch=8, accumulation=2)
    two, together = tune(tmp_path / "two", places(2), batch=4, accumulation=2)
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
