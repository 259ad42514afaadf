"""The command line: processes where signals and limits matter, calls of `main` elsewhere."""

from __future__ import annotations

import ast
import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from tests.helpers.paths import PLUGINS, ROOT
from tests.helpers.programs import Program
from uniprune.cli.main import main
from uniprune.results.comparison import RunComparison

pytestmark = pytest.mark.end_to_end

Checkpoint = Callable[[str], Path]


def words(model: Path, output: Path, *more: str) -> list[str]:
    plugins = [word for name in ("small_benchmark", "slow") for word in ("--plugin", str(PLUGINS / f"{name}.py"))]
    return ["run", "--model", str(model), "--data", "small", "--output", str(output), *plugins, *more]


def start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", str(ROOT / "run.py"), *arguments]
    # Where a whole test run is a background job of a script, SIGINT is ignored, and children inherit that.
    options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def predictions(output: Path) -> list[dict[str, Any]]:
    files = list(output.glob("*/small.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def wait_for_rows(output: Path, count: int, name: str = "small.jsonl") -> None:
    deadline = time.monotonic() + 400
    while sum(file.read_bytes().count(b"\n") for file in output.glob(f"*/{name}")) < count:
        assert time.monotonic() < deadline, "no answers appeared"
        time.sleep(0.02)


def test_help_and_version_are_instant_and_import_no_torch() -> None:
    code = "import sys, runpy; sys.argv = ['run.py', '--help']\ntry: runpy.run_path('run.py', run_name='__main__')\n"
    code += "except SystemExit: sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0
    assert "exit codes" in done.stdout


def test_evaluation_ends_with_leaderboard_and_paths(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = checkpoint("llava")
    assert main(words(model, tmp_path, "--method", "none", "divprune", "fastv", "--ratio", "0.5", "--layer", "3")) == 0
    shown = capsys.readouterr()
    assert "small: " in shown.err
    assert shown.out.index("divprune") < shown.out.index("leaderboard.csv") < shown.out.index("<identity>")
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").open()))
    assert {(row["method"], row["ratio"], row["layer"]) for row in rows} == {
        ("none", "1.0", ""), ("divprune", "0.5", "0"), ("fastv", "0.5", "3")
    }  # fmt: skip
    assert all((tmp_path / row["identity"] / "record.json").is_file() for row in rows)

    files = {kind: tmp_path / "boards" / f"b.{kind}" for kind in ("csv", "md", "html")}
    options = [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    assert main(["leaderboard", "--output", str(tmp_path), *options]) == 0
    assert files["csv"].read_text() == (tmp_path / "leaderboard.csv").read_text()
    assert files["md"].read_text().startswith("| model | method |")
    assert "<title>UniPrune report</title>" in files["html"].read_text()


def test_the_leaderboard_is_computed_once_and_the_rows_of_this_command_are_printed(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []

    class Counted(RunComparison):
        def __init__(self, *arguments: Any) -> None:
            computed.append(1)
            super().__init__(*arguments)

    monkeypatch.setattr("uniprune.results.leaderboard.RunComparison", Counted)
    model = checkpoint("llava")
    assert main(words(model, tmp_path, "--method", "none", "--data", "small", "small-broken", "--limit", "2")) == 0
    capsys.readouterr()
    assert main(words(model, tmp_path, "--method", "divprune", "--ratio", "0.5", "--limit", "2")) == 0
    shown = capsys.readouterr().out
    heading, row, after, *_ = shown.splitlines()
    assert "small" in heading.split()
    assert "small-broken" not in heading
    assert "divprune" in row
    assert "0.5" in row.split() and not after.startswith(row.split()[0] + "  "), "a second row"
    methods = [row["method"] for row in csv.DictReader((tmp_path / "leaderboard.csv").open())]
    assert sorted(methods) == ["divprune", "none"]
    assert len(computed) == 2


def test_defaults_come_from_the_configuration(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(checkpoint("llava"), tmp_path, "--limit", "2")) == 0
    methods = {json.loads(f.read_text())["setup"]["method"]["name"] for f in tmp_path.glob("*/record.json")}
    assert methods == {"none", "random-pre", "divprune"}


@pytest.fixture
def users_method(tmp_path: Path) -> Path:
    """The method CONTRIBUTING.md teaches, saved as a plugin."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    plugin = tmp_path / "every_other.py"
    plugin.write_text(text.split("```python\n")[1].split("```")[0])
    return plugin


def test_a_users_method_of_fifteen_lines_is_evaluated(
    users_method: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    plugin = users_method
    body = [node for node in ast.parse(plugin.read_text()).body if isinstance(node, ast.ClassDef)]
    assert len(body) == 1
    assert (body[0].end_lineno or 0) - body[0].decorator_list[0].lineno < 15
    more = ["--plugin", str(plugin), "--method", "every-other", "--ratio", "0.25", "--set", "offset=1", "--limit", "2"]
    assert main(words(checkpoint("llava"), tmp_path, *more)) == 0
    assert [row["visual_tokens"] for row in predictions(tmp_path)] == [[36] * 6] * 2


@pytest.mark.parametrize("what", ["methods", "models", "benchmarks"])
def test_listings(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["idea"] for row in rows)
    assert main(["list", what]) == 0
    assert next(iter(rows[0].values())) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "divprun"], "unknown method 'divprun'; did you mean 'divprune'"),
        (["--data", "smal"], "unknown benchmark 'smal'; did you mean 'small'"),
        (["--suite", "smal", "--model", "tiny-lava"], "unknown model 'tiny-lava'; did you mean 'tiny-llava'"),
        (["--model", "./nowhere"], "path of an existing folder"),
        (["--ratio", "0"], "keep ratio 0.0 is outside (0, 1]"),
        (["--ratio", "1.5"], "keep ratio 1.5 is outside (0, 1]"),
        (["--ratio", "nan"], "keep ratio nan is outside (0, 1]"),
        (["--method", "divprune", "--set", "positons=compact"], "did you mean 'positions'"),
        (["--method", "none", "divprune", "--set", "foo=1"], "unknown field of method 'none': 'foo'"),
        (["--method", "fastv", "--layer", "0"], "does not exist before layer 0"),
        (["--method", "fastv", "--layer", "6"], "layer 6 is outside the model's decoder layers 0..5"),
        (["--method", "divprune", "--layer", "2"], "layer must be 0, not 2"),
        (["--method", "fastv", "--protocol", "average", "--ratio", "0.1"], "prune earlier or keep more"),
        (["--limit", "0"], "limit 0 must be at least 1"),
        (["--batch-size", "-1"], "batch-size -1 must be at least 1"),
        (["--dtype", "int8"], "dtype 'int8' is unknown"),
        (["--attn", "flash"], "flash"),
        (["--device", "cuda:9"], "cuda:9"),
        (["--plugin", "nowhere.py"], "plugin 'nowhere.py' is not a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_clear_line_and_exit_code_2(
    more: list[str], message: str, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(checkpoint("llava"), tmp_path, *more)) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("error: ")
    assert message in printed


def test_words_argparse_does_not_know_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2") as caught:
        main(["--metod", "divprune"])
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_method_that_breaks_its_contract_fails_with_1(
    users_method: Path, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "twice.py"
    source = users_method.read_text()
    plugin.write_text(
        source.replace("every-other", "twice").replace("EveryOther", "Twice").replace("% len", "* 0 % len")
    )
    arguments = words(checkpoint("llava"), tmp_path / "out", "--plugin", str(plugin), "--method", "twice")
    assert main(arguments) == 1
    assert "Twice" in capsys.readouterr().err
    assert main([*arguments, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_leaderboard_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--output", str(tmp_path)]) == 2
    assert "no run is stored" in capsys.readouterr().err


@pytest.mark.usefixtures("no_hub")
def test_an_unreachable_hub_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(Path("nobody/nothing"), tmp_path)) == 2
    assert "hf download nobody/nothing" in capsys.readouterr().err


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_interrupted_runs_resume_without_loss_or_repetition(
    how: signal.Signals, code: int, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = checkpoint("llava")
    arguments = ["--method", "slow", "--set", "seconds=0.1", "--ratio", "0.25", "--batch-size", "2"]
    stopped = Program(words(model, tmp_path / "a", *arguments))
    wait_for_rows(tmp_path / "a", 4)
    stopped.send_signal(how)
    _, printed = stopped.communicate(timeout=200)
    assert stopped.returncode == code
    assert "Traceback" not in printed
    assert ("run the same command again to resume" in printed) is (how is signal.SIGINT)
    before = next((tmp_path / "a").glob("*/small.jsonl")).read_bytes().splitlines(keepends=True)
    kept = [line for line in before if line.endswith(b"\n")]
    assert 4 <= len(kept) < 12
    assert json.loads(next((tmp_path / "a").glob("*/small.record.json")).read_text())["score"] is None

    assert main(words(model, tmp_path / "a", *arguments)) == 0
    after = next((tmp_path / "a").glob("*/small.jsonl")).read_bytes().splitlines(keepends=True)
    assert after[: len(kept)] == kept
    assert main(words(model, tmp_path / "b", *arguments)) == 0
    assert [(r["index"], r["prediction"]) for r in predictions(tmp_path / "a")] == [
        (r["index"], r["prediction"]) for r in predictions(tmp_path / "b")
    ]


def test_a_worker_that_dies_is_reported_and_nothing_stored_is_lost(checkpoint: Checkpoint, tmp_path: Path) -> None:
    gate, output = tmp_path / "gate", tmp_path / "out"
    arguments = ["--plugin", str(PLUGINS / "gated.py"), "--method", "gated", "--set", f"gate={gate}", "--ratio", "0.25"]
    arguments = words(checkpoint("llava"), output, *arguments, "--batch-size", "1", "--workers", "1")
    process = Program(arguments)
    wait_for_rows(output, 3)  # the fourth row waits at the gate, so that the worker cannot be done before it dies
    [worker] = psutil.Process(process.pid).children()
    worker.kill()
    worker.wait(timeout=60)
    gate.touch()
    _, printed = process.communicate(timeout=200)
    assert process.returncode == 2, printed
    assert "rows cannot be prepared ahead any more" in printed
    assert "run the same command again to resume" in printed
    assert "Traceback" not in printed
    kept = [row["index"] for row in predictions(output)]
    assert kept == [str(i) for i in range(len(kept))]
    assert 3 <= len(kept) < 12
    assert main(arguments) == 0
    assert [row["index"] for row in predictions(output)] == [str(i) for i in range(12)]


def test_an_interrupt_ends_workers_silently(checkpoint: Checkpoint, tmp_path: Path) -> None:
    arguments = ["--method", "slow", "--set", "seconds=0.3", "--ratio", "0.25", "--batch-size", "1", "--workers", "2"]
    process = start(words(checkpoint("llava"), tmp_path, *arguments), start_new_session=True)
    wait_for_rows(tmp_path, 2)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    _, printed = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "Traceback" not in printed
    assert not [worker for worker in workers if worker.is_running()]


def test_a_full_disk_is_reported_and_nothing_stored_is_lost(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = checkpoint("llava")
    arguments = words(model, tmp_path, "--method", "slow", "--ratio", "0.25", "--batch-size", "2")
    limit = 2600  # bytes any file of the child may have: room for the record and some rows, not for all

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    full = start(arguments, preexec_fn=small_files)
    _, printed = full.communicate(timeout=200)
    assert full.returncode == 2
    assert "cannot write" in printed
    assert "run the same command again" in printed
    assert "Traceback" not in printed
    kept = [row["index"] for row in predictions(tmp_path)]
    assert kept == [str(i) for i in range(len(kept))]
    assert 0 < len(kept) < 12
    assert main(arguments) == 0
    assert [row["index"] for row in predictions(tmp_path)] == [str(i) for i in range(12)]


def test_two_processes_on_one_run_share_the_work(checkpoint: Checkpoint, tmp_path: Path) -> None:
    arguments = words(checkpoint("llava"), tmp_path, "--method", "slow", "--ratio", "0.25", "--limit", "4")
    assert main(arguments) == 0
    path = next(tmp_path.glob("*/small.jsonl"))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with FileLock(path.with_suffix(".lock")):
        pair = [Program(arguments) for _ in range(2)]
        for process in pair:
            while "another process" not in process.printed[1]:
                assert process.returncode is None, "ended without waiting"
                time.sleep(0.02)
    for process in pair:
        process.communicate(timeout=200)
        assert process.returncode == 0
    assert [row["index"] for row in predictions(tmp_path)] == ["0", "1", "2", "3"]
