"""VLMEvalKit changes much of the process it is imported into; through the bridge it changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers.kit_tables import EXAMPLES, write
from tests.helpers.paths import ROOT
from uniprune.benchmarks._kit.boot import session, untouched
from uniprune.benchmarks._kit.replacing import replaced

pytestmark = pytest.mark.end_to_end

PROBE = """
import logging, os, random, ssl, sys, warnings
from pathlib import Path
import numpy as np, torch, pandas, rich.console, scipy.sparse.csgraph
from PIL import Image

def state():
    return dict(
        environment=dict(os.environ), folder=os.getcwd(), tls=ssl._create_default_https_context,
        grad=torch.is_grad_enabled(), seed=torch.initial_seed(), torch=torch.get_rng_state().tolist(),
        random=random.getstate(), numpy=str(np.random.get_state()), handlers=list(logging.getLogger().handlers),
        level=logging.getLogger().level, disabled=logging.root.manager.disable, filters=list(warnings.filters),
        pixels=Image.MAX_IMAGE_PIXELS, home=sorted(Path.home().iterdir()), tmp=sorted(Path("/tmp").glob("*.tsv")),
        stderr=sys.stderr, stdout=sys.stdout,
    )

random.seed(5); np.random.seed(6); torch.manual_seed(7)
before = state()
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.evaluation.dataset import DataOptions
folder = Path(sys.argv[1])
for name in sys.argv[2:]:
    dataset = KitDataset(name, TASKS[name], folder / f"{name}.tsv", DataOptions(folder, judge="rule"))
    predictions = {request.index: "A" for request in dataset.requests() if request.load()}
    dataset.score(predictions, folder / "scores")
after = state()
changed = [key for key in before if before[key] != after[key]]
assert not changed, changed
zoo = [name for name in sys.modules if name in ("vlmeval.vlm", "vlmeval.config", "vlmeval.tools", "transformers")]
assert not zoo, zoo
assert sorted(folder.iterdir()) == sorted([*folder.glob("*.tsv"), folder / "home", folder / "scores"])
assert not list((folder / "scores").iterdir())
print("untouched")
"""


def test_nothing_of_the_process_changes(tmp_path):
    names = ["mme", "mmbench-en", "mathvista", "mathvision", "ocrbench", "mia-bench", "pope"]
    for name in names:
        write(tmp_path / f"{name}.tsv", EXAMPLES[name].rows)
    (tmp_path / "home").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", PROBE, str(tmp_path), *names],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "PRED_FORMAT": "json"}
        | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},  # the kit under test
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "untouched\n", "")
    assert not list((tmp_path / "home").iterdir())  # the kit's habit is ~/LMUData


def test_a_failure_inside_is_cleaned_up_as_well(monkeypatch):
    import torch

    monkeypatch.setenv("PRED_FORMAT", "xlsx")
    with pytest.raises(KeyError, match="inside"), session() as folder:
        assert os.environ["PRED_FORMAT"] == "tsv" and os.environ["LMUData"] == str(folder)  # noqa: SIM112
        torch.set_grad_enabled(False)
        raise KeyError("inside")
    assert os.environ["PRED_FORMAT"] == "xlsx" and "LMUData" not in os.environ
    assert torch.is_grad_enabled() and not folder.exists()


def test_untouched_restores_a_deleted_variable(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    with untouched():
        del os.environ["KEPT"]
        os.environ["NEW"] = "2"
    assert os.environ["KEPT"] == "1" and "NEW" not in os.environ


def test_replaced_restores_after_an_error():
    class Target:
        value = 1

    with pytest.raises(KeyError, match="inside"), replaced(Target, value=2):
        assert Target.value == 2
        raise KeyError("inside")
    assert Target.value == 1


def test_a_missing_kit_is_a_user_error():
    code = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'vlmeval' else find(name, *a)\n"
        "from uniprune.benchmarks._kit.boot import boot\nfrom uniprune.errors import UserError\n"
        "try: boot()\nexcept UserError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pip install 'uniprune[vlmeval]'" in run.stdout
