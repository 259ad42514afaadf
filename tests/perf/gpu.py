"""One session on a machine with a GPU: tests, `bench`, tower, selections and the targets, the most important first.

    python -m tests.perf.gpu --seconds 480 --output gpu-session
    python -m tests.perf.gpu --output gpu-session --part tests qwen-1
    python -m tests.perf.gpu --output dry-run --dry-run        # tiny models on the CPU: does every block start?

Every block is a process of its own with a time limit: a block that fails or hangs stops no other, and one for which no
time is left is skipped. In the folder, `blocks.jsonl` has a line for every block that ended, `NAME.log` its output,
`NAME.jsonl` its rows. This program itself needs Python only; `--site` names a folder with packages that the machine
lacks (`pip install --target FOLDER pydantic rich`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEAST = 20.0
"""Seconds below which no block is started."""
DONE = "done"
GRACE = 10.0
"""Seconds in which an interrupted block may end by itself."""
TINY = {
    "qwen2.5-vl-7b": ("tiny-qwen2.5-vl", 36),
    "internvl3-8b": ("tiny-internvl", 144),
    "llava-1.5-7b": ("tiny-llava", 144),
}
"""Model -> small stand-in of a dry run, and its visual tokens."""


Line = dict[str, str | float]
"""Of `blocks.jsonl`: block, state, seconds and, if it ran, command."""


@dataclass(frozen=True)
class Block:
    """A program with a time limit.

    Attributes:
        name: of its files.
        words: the program, after `python`.
        seconds: its limit.
        reserved: whether time is kept for it, because it reads what the others wrote.
    """

    name: str
    words: tuple[str, ...]
    seconds: float
    reserved: bool = False


def bench(
    folder: Path,
    name: str,
    model: str,
    batch: int,
    tokens: int,
    methods: str,
    repeats: int,
    seconds: float,
    dry: bool,
    *more: str,
) -> Block:
    """Return a block of `bench` on random weights."""
    if dry:
        (model, tokens), repeats, batch = TINY[model], 1, min(batch, 2)
    words = ["run.py", "bench", "--random-weights", "--model", model, "--ratio", "0.111", "--batch", str(batch)]
    words += ["--tokens", str(tokens), "--new-tokens", "2", "--repeats", str(repeats), "--warmup", "1" if dry else "3"]
    words += [
        "--method",
        *methods.split(),
        "--output",
        str(folder / f"{name}.jsonl"),
        "--csv",
        str(folder / f"{name}.csv"),
    ]
    return Block(name, (*words, *more), seconds)


def blocks(folder: Path, dry: bool) -> list[Block]:
    """Return all blocks, the most important ones first.

    Args:
        folder: of the output.
        dry: tiny models on the CPU instead of published dimensions on a GPU.
    """

    def timed(name: str, model: str, batch: int, tokens: int, methods: str, repeats: int, *more: str) -> Block:
        return bench(folder, name, model, batch, tokens, methods, repeats, 110, dry, *more)

    device = "cpu" if dry else "cuda"
    selections = ("--tokens", "256", "--width", "64") if dry else ("--tokens", "576", "1280", "2880")
    qwen, llava, internvl = "qwen2.5-vl-7b", "llava-1.5-7b", "internvl3-8b"
    first = "random-pre divprune cdpruner fastv visionzip fopru gprune dart sparsevlm mustdrop"
    found = [
        Block("tests", _tests(), 150),
        timed("qwen-1", qwen, 1, 1280, first, 10),
        timed("llava-16", llava, 16, 576, "random-pre divprune fastv vispruner prumerge", 6),
        timed("graphs-1", qwen, 1, 1280, "random-pre divprune fastv", 8, "--graphs"),
        _module("tower", 60, *(["--help"] if dry else ["--output", str(folder / "tower.jsonl")])),  # no tiny one exists
        timed("qwen-8", qwen, 8, 1280, "random-pre divprune fastv visionzip", 6),
        timed("internvl-8", internvl, 8, 1792, "random-pre divprune fastv visionzip dart", 6),
        _module(
            "selections", 80, "--device", device, "--seconds", "0.05" if dry else "0.1", *selections,
            "--json", str(folder / "selections.json"),
        ),
        timed("graphs-8", internvl, 8, 1792, "random-pre divprune", 4, "--graphs"),
        timed("llava-1", llava, 1, 576, "random-pre divprune fastv vispruner prumerge", 8),
    ]  # fmt: skip
    rows = (str(folder / f"{block.name}.jsonl") for block in found if "bench" in block.words)
    words = ("-m", "tests.perf.targets", *rows, "--tower", str(folder / "tower.jsonl"))
    return [*found, Block("targets", words, 25, reserved=True)]


def _module(name: str, seconds: float, *words: str) -> Block:
    """Return a block that runs a program of this folder."""
    return Block(name, ("-m", f"tests.perf.{name}", *words), seconds)


def _tests() -> tuple[str, ...]:
    """Return the tests that need a GPU, in a few processes if pytest can."""
    files = sorted(
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8")
    )
    several = ("-n", "4") if importlib.util.find_spec("xdist") else ()
    # Not the options of pyproject.toml, which are strict about settings of plugins that may be missing.
    plain = ("-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider")
    return ("-m", "pytest", "-m", "gpu", "-q", "-rfE", "--tb=short", *plain, *several, *files)


def run(block: Block, folder: Path, limit: float, environment: dict[str, str]) -> Line:
    """Run a block for at most `limit` seconds; return its line for `blocks.jsonl`."""
    started = time.monotonic()
    with (folder / f"{block.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *block.words], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        code = _wait(process, limit)
    seconds = round(time.monotonic() - started, 1)
    state = "out of time" if code is None else DONE if code == 0 else f"exit code {code}"
    return {"block": block.name, "state": state, "seconds": seconds, "command": " ".join(("python", *block.words))}


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """Wait for a process; interrupt, then kill it with its children if it takes longer, and return None."""
    for signum, seconds in ((signal.SIGINT, limit), (signal.SIGKILL, GRACE)):
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signum)
        else:
            return code if signum == signal.SIGINT else None
    process.wait()
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the blocks; return 1 if one failed or was left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of logs and rows")
    parser.add_argument(
        "--seconds", type=float, default=480, metavar="N", help="for all blocks together (default: 480)"
    )
    parser.add_argument("--part", nargs="+", metavar="NAME", help="only these blocks")
    parser.add_argument("--site", type=Path, metavar="DIR", help="folder of packages that the machine lacks")
    parser.add_argument("--dry-run", action="store_true", help="tiny models on the CPU")
    options = parser.parse_args(arguments)
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    every = blocks(folder, options.dry_run)
    if unknown := {*(options.part or ())} - {block.name for block in every}:
        parser.error(f"no block {', '.join(sorted(unknown))}; known: {', '.join(block.name for block in every)}")
    chosen = [block for block in every if options.part is None or block.name in options.part]
    environment = dict(os.environ)
    if options.site is not None:
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(options.site.resolve()), environment.get("PYTHONPATH")))
        )
    lines = session(chosen, folder, options.seconds, environment)
    return 0 if all(line["state"] == DONE for line in lines) else 1


def session(chosen: Sequence[Block], folder: Path, seconds: float, environment: dict[str, str]) -> list[Line]:
    """Run blocks one after the other, within a time for all; return the lines of `blocks.jsonl`."""
    end, lines = time.monotonic() + seconds, []
    for number, block in enumerate(chosen):
        later = sum(one.seconds for one in chosen[number + 1 :] if one.reserved)
        limit = min(block.seconds, end - time.monotonic() - later)
        if limit < min(LEAST, block.seconds):
            lines.append({"block": block.name, "state": "skipped: no time left", "seconds": 0.0})
        else:
            lines.append(run(block, folder, limit, environment))
        with (folder / "blocks.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(lines[-1]) + "\n")
        print(f"{block.name}: {lines[-1]['state']}, {lines[-1]['seconds']} s", flush=True)
        if lines[-1]["state"] != DONE or block.reserved:
            _show(folder / f"{block.name}.log")
    return lines


def _show(log: Path, lines: int = 80) -> None:
    """Print the end of a log."""
    if log.exists():
        print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
