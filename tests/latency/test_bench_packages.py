"""`bench` on a machine that has torch and transformers: one `pip install pydantic rich pillow` is all it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.latency.test_bench import words
from uniprune.latency.rows import BenchFile

pytestmark = pytest.mark.end_to_end

OTHERS = (
    *("vlmeval", "torchvision", "benchmarks", "pandas", "scipy", "statsmodels", "sklearn", "matplotlib", "accelerate"),
    *("psutil", "peft", "datasets", "ray", "cv2", "decord", "lm_eval"),
)
"""Packages that UniPrune uses elsewhere, and the folder of benchmarks."""
BLOCKED = """
import importlib.abc, importlib.util, runpy, sys
missing = sys.argv[1].split(",")
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in missing else find(name, package)
sys.argv = ["run.py", *sys.argv[2:]]
runpy.run_path("run.py", run_name="__main__")
"""


def without(missing: tuple[str, ...], *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that lacks packages."""
    program = [sys.executable, "-c", BLOCKED, ",".join(missing), *command]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=200)


def test_it_needs_no_other_package(tmp_path: Path) -> None:
    table = tmp_path / "bench.csv"
    more = ["--model", "tiny-qwen2.5-vl", "--method", "fastv", "--csv", str(table), "--json", str(tmp_path / "b.json")]
    done = without(OTHERS, *words(tmp_path, *more))
    assert done.returncode == 0, done.stderr
    assert len(BenchFile(tmp_path / "bench.jsonl").rows) == 2
    assert len(table.read_text().splitlines()) == 3


@pytest.mark.parametrize("name", ["pydantic", "rich"])
def test_a_missing_package_is_named_with_the_remedy(name: str, tmp_path: Path) -> None:
    done = without((name,), *words(tmp_path, "--model", "tiny-llava", "--method", "fastv"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: the package {name} is missing from {sys.executable}; run `")
    assert "pip install pydantic rich pillow" in done.stderr
