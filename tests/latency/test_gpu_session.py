"""The session on a GPU: one failing, hanging or late block stops no other, and every block is a valid program."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from tests.perf.gpu import Block, blocks, main, session
from uniprune.cli import discover
from uniprune.cli.parser import build_parser
from uniprune.latency.options import BenchOptions


def test_a_block_that_fails_or_hangs_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = "import subprocess, sys, time; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    chosen = [
        Block("fails", ("-c", "print('reason'); raise SystemExit(3)"), 10),
        Block("hangs", ("-c", child), 0.5),
        Block("works", ("-c", "import added; print(added.__name__)"), 5),
        Block("late", ("-c", "print(1)"), 1000),
        Block("last", ("-c", "print('read')"), 9, reserved=True),
    ]
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "added.py").write_text("")
    lines = session(chosen, tmp_path, 29, os.environ | {"PYTHONPATH": str(tmp_path / "site")})
    states = ["exit code 3", "out of time", "done", "skipped: no time left", "done"]
    assert [line["state"] for line in lines] == states
    assert [json.loads(line) for line in (tmp_path / "blocks.jsonl").read_text().splitlines()] == lines
    assert (tmp_path / "works.log").read_text() == "added\n"
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["fails: exit code 3, " + f"{lines[0]['seconds']} s", "reason"]  # logs of failures are shown
    assert shown[-1] == "read"  # and that of the last block
    assert float(lines[1]["seconds"]) < 12


@pytest.mark.parametrize("dry", [False, True])
def test_every_block_is_a_program_that_exists(dry: bool, tmp_path: Path) -> None:
    parser = build_parser(discover())
    found = blocks(tmp_path, dry)
    assert [block.name for block in found][0::10] == ["tests", "targets"]
    assert sum(block.seconds for block in found if not block.name.startswith(("graphs", "llava-1"))) < 900
    for block in found:
        if block.words[0] == "-m":
            assert importlib.util.find_spec(block.words[1]), block.name
        else:
            options = parser.parse_args(block.words[1:])
            BenchOptions(batches=tuple(options.batch), tokens=tuple(options.tokens), repeats=options.repeats)


def test_unknown_blocks_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--output", str(tmp_path), "--part", "test"])
    assert "no block test; known: tests, qwen-1," in capsys.readouterr().err
