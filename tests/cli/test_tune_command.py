"""`python run.py tune`: files, tables, report, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.disk import full_disk
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.models.tiny.language import FOLDER
from uniprune.synthetic.letters import training_set
from uniprune.tuning import comparison, summary
from uniprune.tuning.settings import load_settings
from uniprune.tuning.step_log import StepLog
from uniprune.tuning.summary import seed_mean
from uniprune.utils.paths import ROOT

pytestmark = pytest.mark.end_to_end

pytest.importorskip("peft")


def write(folder: Path, **fields: Any) -> Path:
    data = folder / "data.json"
    rows: list[Any] = training_set(640)[:16]
    rows.insert(3, {"instruction": "please", "output": ""})
    data.write_text(json.dumps(rows))
    file = folder / "file.yaml"
    common = {"model": str(FOLDER), "data": [str(data)], "test": ["generated"], "epochs": 1, "batch": 4, "rate": 0.005,
              "accumulation": 2, "cutoff": 64, "sample_ratio": 0.5, "probe": 4, "seeds": [0, 1],
              "pairs": [{"samples": "q", "tokens": "q", "role": "method"}, {"samples": "random", "tokens": "random"},
                        {"samples": "full", "tokens": "none", "role": "whole"}]}  # fmt: skip
    file.write_text(yaml.safe_dump(common | fields))
    return file


@pytest.mark.slow
def test_a_comparison_from_file_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write(tmp_path), tmp_path / "out"
    assert main(["tune", str(file), "--output", str(out)]) == 0
    output = capsys.readouterr()
    for expected in ("Accuracy", "Time", "Quadrants of the method", "q+q minus random+random (best baseline pair):",
                     "q+q minus full+none:", "(before tuning)"):  # fmt: skip
        assert expected in output.out
    assert "1 rows: empty answer (row 3)" in output.err
    assert "6/6" in output.err
    records = [json.loads(path.read_text()) for path in out.glob("file/*/record.json")]
    assert len(records) == 6
    assert all(record["problems"] == ["1 rows: empty answer (row 3)"] for record in records)
    assert not list(out.glob("file/*/checkpoint-*"))
    accuracy = (out / "file" / "accuracy.csv").read_text()
    for record in records:
        right = [r for r in records if r["label"] == record["label"]]
        exact = sum(100 * r["after"][""]["right"] / r["after"][""]["items"] for r in right) / 2
        assert re.search(rf"^{re.escape(record['label'])},\w+,2,{exact:.1f} ±", accuracy, re.MULTILINE)
    quadrants = (out / "file" / "quadrants.csv").read_text().splitlines()
    assert sorted(line.split(",")[0] for line in quadrants[1:]) == ["clean", "hard", "mislabelled", "redundant"]
    assert sum(int(line.split(",")[1]) for line in quadrants[1:]) == 32
    for line in quadrants[1:]:
        assert sum(map(float, line.split(",")[2:7])) == pytest.approx(100, abs=0.5)
    page = (out / "file" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert 'class="removed"' in page
    assert not re.search(r'(src|href)="(?!#)', page)
    # A second call performs nothing and prints the same.
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("file/*/record.json")}
    assert main(["tune", str(file), "--output", str(out)]) == 0
    assert capsys.readouterr().out == output.out
    assert stamps == {path: path.stat().st_mtime_ns for path in out.glob("file/*/record.json")}


def test_showing_a_finished_run_writes_nothing_into_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, pairs=[{"samples": "full", "tokens": "none"}], seeds=[0], test=[], probe=0)
    arguments = ["tune", str(file), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    (steps,) = tmp_path.glob("out/file/*/steps.jsonl")
    log = StepLog(steps)
    for number in range(len(log.steps), 200):
        log.append(log.steps[0].model_copy(update={"step": number}))

    def state() -> dict[Path, tuple[bytes, int]]:
        return {
            path: (path.read_bytes(), path.stat().st_mtime_ns) for path in steps.parent.rglob("*") if path.is_file()
        }

    before = state()
    capsys.readouterr()
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert state() == before
    # On a full disk the tables are still printed; only the report cannot be written.
    with full_disk(1000):
        assert main(arguments) == 2
    output = capsys.readouterr()
    assert shown.startswith(output.out.rstrip())
    assert "Accuracy" in output.out
    assert "report.html: File too large" in output.err
    assert state() == before
    # Another process appends while the tables are made.
    monkeypatch.setattr(comparison, "time_table", lambda runs: (log.append(log.steps[0]), summary.time_table(runs))[1])
    assert main(arguments) == 0
    assert steps.read_bytes().startswith(before[steps][0])
    assert len(StepLog(steps).steps) == 201


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pairs": [{"samples": "quadrant", "tokens": "q"}]}, "unknown sample strategy 'quadrant'"),
        ({"pairs": [{"samples": "q", "tokens": "pp"}]}, "did you mean 'ppl'"),
        ({"pairs": [{"samples": "q", "tokens": "q", "set": {"tokens.lambda": 1}}]}, "known: keep, prune, smoothing"),
        ({"pairs": [{"samples": "q", "tokens": "q", "set": {"tokens.keep": "top"}}]}, "keep='top'"),
        ({"pairs": [{"samples": "q", "tokens": "rho-1"}]}, "set reference: FOLDER"),
        ({"pairs": [{"samples": "q", "tokens": "q"}] * 2}, "names a pair twice"),
        ({"sample_ratio": 0.0}, "sample_ratio: Input should be greater than 0 (got 0.0)"),
        ({"epoch": 3}, "epoch: Extra inputs are not permitted"),
        ({"model": "no/such/folder"}, "cannot be loaded"),
        ({"data": ["missing.json"]}, "does not exist"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    fields: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_hub: None
) -> None:
    assert main(["tune", str(write(tmp_path, **fields)), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not list(tmp_path.glob("out/*/*/record.json"))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_settings(tmp_path / "x.yaml", ROOT)
    (tmp_path / "y.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"y\.yaml cannot be read as YAML: line 1"):
        load_settings(tmp_path / "y.yaml", ROOT)


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "qtuning").glob("*.yaml")), ids=lambda file: file.stem)
def test_files_of_the_repository_are_right(file: Path) -> None:
    settings = load_settings(file, ROOT)
    assert all(settings.pair(choice) for choice in settings.pairs)


def test_defaults_are_the_papers() -> None:
    settings = load_settings(ROOT / "configs" / "qtuning" / "wizardlm.yaml", ROOT)
    table7 = {"rate": 1e-4, "epochs": 3, "batch": 8, "accumulation": 4, "cutoff": 2048, "rank": 8, "schedule": "cosine",
              "sample_ratio": 0.125, "token_ratio": 0.5, "removal": "physical"}  # fmt: skip
    assert {name: getattr(settings, name) for name in table7} == table7
    assert settings.pair(settings.pairs[0]).tokens.smoothing == 0.5  # type: ignore[attr-defined]


def test_strategies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "strategies", "q", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["strategy"], row["of"]) for row in rows] == [("q", "samples"), ("q", "tokens")]
    assert rows[1]["fields"] == {"smoothing": "0.5", "keep": "low", "prune": "(2,)"}


def test_intervals_are_students() -> None:
    assert str(seed_mean([50.0])) == "50.0"
    assert seed_mean([10.0, 20.0, 30.0]).half == pytest.approx(4.302653 * 10 / 3**0.5, rel=1e-6)
