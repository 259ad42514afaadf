"""`python run.py calibrate`: from prompts to settings, and from settings to a run, on the trained tiny models."""

from __future__ import annotations

import json
import shlex
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.programs import Program
from uniprune.cli.main import main
from uniprune.results.records import RunRecord
from uniprune.results.store import Store

pytestmark = pytest.mark.end_to_end

MODEL = ["--model", "tiny-llava"]
FEW = ["--data", "mini-pope", "mini-mme", "--limit", "6"]


def calibrate(keep: Path, method: str, *more: str) -> int:
    return main(["calibrate", method, *MODEL, *FEW, "--keep", str(keep), *more])


def run(command: str, output: Path) -> RunRecord:
    """Run the printed command line on two rows."""
    words = shlex.split(command)
    assert words[:2] == ["python", "run.py"]
    assert main(["run", *words[2:], "--data", "mini-pope", "--limit", "2", "--output", str(output)]) == 0
    (record,) = Store(output).records()
    return record


def entering(record: RunRecord) -> list[float]:
    """Visual tokens measured at each layer."""
    (dataset,) = record.datasets.values()
    assert dataset.ledger is not None
    assert not dataset.ledger.flagged
    return dataset.ledger.layers


def test_the_layer_of_withdrawal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "vtw.json"
    assert calibrate(tmp_path / "kept", "vtw", "--search", "eta=0.5", "first=1", "--output", str(found)) == 0
    printed = capsys.readouterr().out.splitlines()
    content = json.loads(found.read_text())
    divergence = {int(layer): kl for layer, kl in content["evidence"]["divergence"].items()}
    assert sorted(divergence) == [1, 2, 3, 4, 5]
    layer = min(layer for layer, kl in divergence.items() if kl <= 0.5)
    assert content["evidence"]["layer"] == layer
    assert printed[-2].startswith(f"K = {layer} of 6 layers")
    assert entering(run(printed[-1], tmp_path / "results")) == [144] * layer + [0] * (6 - layer)


@pytest.mark.parametrize("written", [False, True], ids=["inline", "file"])
def test_a_recipe(written: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "with space.json"
    assert calibrate(tmp_path / "kept", "fitprune", "--search", "flops=0.5", *["--output", str(found)] * written) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    record = run(command, tmp_path / "results")
    recipe = record.setup.method.passed["fitprune.recipe"]
    assert sum(recipe) > 0
    assert entering(record) == [144 - sum(recipe[:layer]) for layer in range(6)]
    if written:
        content = json.loads(found.read_text())
        assert content["settings"] == {"recipe": recipe, "recipe_tokens": 144}
        assert 3 <= content["prompts"]["seen"] <= 6


@pytest.mark.parametrize("method", [pytest.param("vtw", marks=pytest.mark.exhaustive), "fitprune"])
def test_an_interrupted_search_goes_on(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prompts observed before the interrupt are not observed again, and the result is that of a single search."""
    search = {"vtw": "eta=0.5", "fitprune": "flops=0.5"}[method]
    words = ["calibrate", method, *MODEL, "--data", "mini-mme", "--limit", "60", "--search", search, "--keep"]
    one_go, kept = tmp_path / "one go", tmp_path / "kept"
    assert main([*words, str(one_go)]) == 0
    whole = capsys.readouterr().out
    stopped = Program([*words, str(kept)])
    deadline = time.monotonic() + 200
    while len(list(kept.glob("*/*.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    _, printed = stopped.communicate(timeout=200)
    assert stopped.returncode == 130
    assert "run the same command again to resume" in printed
    before = {path: path.stat().st_mtime_ns for path in kept.glob("*/*.safetensors")}
    assert 2 <= len(before) < len(list(one_go.glob("*/*.safetensors")))
    assert main([*words, str(kept)]) == 0
    assert capsys.readouterr().out == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {path.name for path in kept.glob("*/*.safetensors")} == {
        path.name for path in one_go.glob("*/*.safetensors")
    }


def test_another_bound_looks_at_nothing_again_and_another_start_at_everything(tmp_path: Path) -> None:
    assert calibrate(tmp_path, "vtw", "--search", "eta=1e-12", "first=2") == 2
    (folder,) = tmp_path.iterdir()
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert calibrate(tmp_path, "vtw", "--search", "eta=100", "first=2") == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    next(iter(times)).write_bytes(b"damaged")
    assert calibrate(tmp_path, "vtw", "--search", "eta=100", "first=2") == 0
    assert next(iter(times)).stat().st_size > 100
    assert calibrate(tmp_path, "vtw", "--search", "eta=100", "first=3") == 0
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["divprune"], "method 'divprune' has no settings to find; those that do: fitprune, vtw"),
        (["vtw", "--search", "etta=1"], "did you mean 'eta'"),
        (["vtw", "--search", "eta=low"], "--search eta=low"),
        (["vtw", "--search", "eta=-1"], "eta -1.0 must be a finite number above 0"),
        (["vtw", "--limit", "0"], "limit 0 must be at least 1"),
        (["vtw", "--search", "eta=1e-12"], "--search eta="),
        (["fitprune", "--search", "flops=0.01"], "no recipe leaves 0.01 of the FLOPs"),
    ],
)
def test_mistakes(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", *MODEL, "--keep", str(tmp_path), "--data", "mini-pope", "--limit", "1", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_calibrate_did_not_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.json"
    for text in ("{}", "[1]", "no json", '{"settings": 3}'):
        wrong.write_text(text)
        assert main(["run", "--method", "vtw", "--set", f"@{wrong}"]) == 2
        assert "no settings can be read from it" in capsys.readouterr().err
