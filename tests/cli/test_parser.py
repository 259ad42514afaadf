"""The command line itself: nearest names, home folders, encodings, readers that leave, interrupts at any moment."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.records import dataset, run
from tests.results.test_store import store
from uniprune.cli import COMMANDS, discover
from uniprune.cli.main import main
from uniprune.cli.parser import parse
from uniprune.utils.plain_output import survive


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["leaderbord"], "unknown command 'leaderbord', did you mean 'leaderboard'?; commands: run, "),
        (["xyz"], "unknown command 'xyz'; commands: run, sweep"),
        (["leaderboard", "--cvs", "f"], "unknown option '--cvs', did you mean '--csv'?; "),
        (["--methd=divprune"], "unknown option '--methd', did you mean '--method'?; "),
        (["leaderboard", "extra"], "unknown word 'extra'; "),
        (["list", "metods"], "'strategies'), did you mean 'methods'?; "),
        (["sweep"], "the following arguments are required: FILE.yaml; "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistyped_words_are_one_line_with_the_nearest_name(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(words)
    except SystemExit as exit:
        assert isinstance(exit.code, int)
        code = exit.code
    assert code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_home_folder_is_expanded_after_an_equal_sign_in_every_command() -> None:
    home = Path.home()
    commands = discover(COMMANDS)
    assert parse(commands, ["run", "--output=~/x", "--data-dir=~/y", "--model=~/m"]).output == home / "x"
    assert parse(commands, ["run", "--model=~/m"]).model == f"{home}/m"
    assert parse(commands, ["leaderboard", "--output=~/x", "--csv=~/c"]).csv == home / "c"
    assert parse(commands, ["run", "--set", "field=~x"]).set == ["field=~x"], "values of methods stay"


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "ascii", "utf-8"])
def test_no_encoding_fails_and_no_sign_is_lost(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    survive(stream)
    stream.write("−5.2 ± 0.1 … 视 é\n")
    stream.flush()
    text = raw.getvalue().decode(encoding)
    assert text.startswith(("-5.2 ", "−5.2 "))
    assert {"ascii": "+/- 0.1 ... \\u89c6 \\xe9", "cp1252": "± 0.1 … \\u89c6 é"}.get(encoding, "") in text


def started(words: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.end_to_end
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_tables_in_other_encodings_and_readers_that_leave(encoding: str, tmp_path: Path) -> None:
    store(tmp_path, run("none", {"x": dataset([1.0, 0.0])}), run("one", {"x": dataset([1.0, 0.0])}))
    done = started(["leaderboard", "--output", str(tmp_path)], PYTHONIOENCODING=encoding)
    assert done.stdout is not None
    assert done.stdout.readline().startswith("model")
    done.stdout.close()
    assert done.stderr is not None
    assert done.stderr.read() == ""
    assert done.wait(60) == 0


@pytest.mark.end_to_end
@pytest.mark.parametrize("times", [[0.12], [0.2, 0.02, 0.02], [0.5], [1.0, 0.05]])
def test_interrupts_at_any_moment_are_one_line(times: list[float]) -> None:
    process = started(["list", "methods"])
    for wait in times:
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=100)
    # Before the first line of ours is run, the interpreter itself is interrupted; a fast machine is done before.
    assert process.returncode in (130, -signal.SIGINT, 1, 0)
    if "run.py" in printed or process.returncode == 130:
        assert printed.splitlines() == ["interrupted"]
