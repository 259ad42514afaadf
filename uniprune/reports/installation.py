"""The installation as a list of findings, each with the command that mends it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from uniprune.errors import UserError
from uniprune.utils.paths import PROGRAM, ROOT

State = Literal["ok", "note", "missing"]
PATIENCE = 5.0
"""Seconds that a hub may take to reply."""
LITTLE = 5e9
"""Bytes of free disk below which there is a note."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked up.

    Attributes:
        what: its name.
        state: "ok"; "note" for what only some commands need; "missing" for what everything needs.
        detail: what was found.
        remedy: command or step that mends it; empty if nothing is to be mended.
    """

    what: str
    state: State
    detail: str
    remedy: str = ""


def findings(data_dir: Path, output: Path, judge: str | None, judge_model: str | None) -> Iterator[Finding]:
    """Look up everything that commands use, cheap things first; nothing is installed, downloaded or written.

    Args:
        data_dir: folder of the benchmarks' files.
        output: folder of the runs.
        judge: URL of a judge to try; None for none.
        judge_model: its model.
    """
    yield _python()
    yield from _packages()
    yield _disk(output)
    steps: tuple[Callable[[], Iterator[Finding]], ...] = (
        *(_torch, _kernels, _kit, lambda: _data(data_dir), lambda: _judge(data_dir, judge, judge_model), _hub),
    )
    for step in steps:
        try:
            yield from step()
        except Exception as error:  # one broken package hides nothing else
            yield Finding("error", "missing", f"{type(error).__name__}: {error}".splitlines()[0])


def _python() -> Finding:
    """Check the interpreter."""
    found = f"{sys.version.split()[0]} ({sys.executable})"
    if sys.version_info < (3, 11):  # noqa: UP036 - `python -m uniprune` of an older interpreter
        return Finding("Python", "missing", found, "make demo PYTHON=python3.11")
    return Finding("Python", "ok", found)


def _packages() -> Iterator[Finding]:
    """Check the packages that every command may need, as the installation requires them."""
    try:
        wanted = [Requirement(text) for text in requires("uniprune") or ()]
    except PackageNotFoundError:
        yield Finding("uniprune", "note", "not installed; run from a checkout", "pip install -c constraints.txt -e .")
        return
    yield Finding("uniprune", "ok", f"{version('uniprune')} in {ROOT}")
    wrong = []
    for one in wanted:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(one.name)
        except PackageNotFoundError:
            found = "none"
        if found == "none" or not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} {one.specifier} (there is {found})")
    if wrong:
        yield Finding("packages", "missing", ", ".join(wrong), "pip install -c constraints.txt -e .")
    else:
        yield Finding("packages", "ok", f"transformers {version('transformers')} and all others")


def _disk(output: Path) -> Finding:
    """Check the free space and the right to write where results go."""
    folder = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Finding("results", "missing", f"{folder} cannot be written", "choose another --output")
    state: State = "ok" if free > LITTLE else "note"
    return Finding("results", state, f"{output}, {free / 1e9:.0f} GB free", "" if state == "ok" else "make room")


def _torch() -> Iterator[Finding]:
    """Check torch, the torchvision that belongs to it, and GPUs."""
    import torch

    from uniprune.utils.torchvision_compat import ensure_torchvision

    needed = next(
        (str(one.specifier) for one in map(Requirement, requires("torchvision") or ()) if one.name == "torch"), ""
    )
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    pair = f"torchvision {version('torchvision')}, made for torch {needed.removeprefix('==') or 'of any version'}"
    if needed and torch.__version__.partition("+")[0] != needed.removeprefix("=="):
        yield Finding("torchvision", "missing", pair, "pip install -c constraints.txt torch torchvision")
    elif not ensure_torchvision():
        yield Finding("torchvision", "missing", "none", "pip install -c constraints.txt torchvision")
    else:
        yield Finding("torchvision", "ok", pair)
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            one = torch.cuda.get_device_properties(number)
            yield Finding(f"GPU {number}", "ok", f"{one.name}, {one.total_memory / 1e9:.0f} GB")
    elif shutil.which("nvidia-smi") and _succeeds(["nvidia-smi", "-L"]):
        remedy = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cu130"
        yield Finding("GPU", "note", f"there is one, but torch {torch.__version__} does not see it", remedy)
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "note", "Apple's is not used: runs are on the CPU")
    else:
        yield Finding("GPU", "note", "none: runs are on the CPU, which suits the tiny models")


def _succeeds(command: list[str]) -> bool:
    """Check whether a program ends well."""
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


def _kernels() -> Iterator[Finding]:
    """Check the packages of faster kernels, which only GPUs need."""
    import torch

    there = {name: find_spec(name) is not None for name in ("triton", "flash_attn")}
    names = ", ".join(f"{name} {'installed' if found else 'not installed'}" for name, found in there.items())
    if not torch.cuda.is_available():
        yield Finding("kernels", "ok", f"sdpa ({names}; without a GPU none is needed)")
    elif not there["triton"]:
        yield Finding("kernels", "note", f"{names}: greedy selections take torch's slower way", "pip install triton")
    else:
        remedy = "" if there["flash_attn"] else "for --attn flash_attention_2: pip install 'uniprune[flash]'"
        yield Finding("kernels", "ok", names, remedy)


def _kit() -> Iterator[Finding]:
    """Check the benchmarks' scoring kit and the embedded models."""
    if find_spec("vlmeval") is None:
        yield Finding("VLMEvalKit", "missing", "not installed", "pip install -c constraints.txt 'uniprune[vlmeval]'")
    else:
        from uniprune.registry import BENCHMARKS

        yield Finding("VLMEvalKit", "ok", f"{_version('ms-vlmeval')}; {len(BENCHMARKS.names())} benchmarks")
    folders = sorted(path.parent.name for path in (ROOT / "models" / "tiny").glob("*/model.safetensors"))
    if folders:
        yield Finding("embedded models", "ok", ", ".join(folders))
    else:
        yield Finding("embedded models", "missing", f"none in {ROOT / 'models' / 'tiny'}", "install again")


def _version(name: str) -> str:
    """Return the version of a distribution, or that it is a source tree."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "a source tree"


def _data(data_dir: Path) -> Iterator[Finding]:
    """Count the benchmarks whose files are there."""
    from uniprune.registry import BENCHMARKS

    sources = {name: BENCHMARKS.entry(name).metadata.get("source") for name in BENCHMARKS.names()}
    there = [name for name, source in sources.items() if source and source.path(data_dir).is_file()]
    all_of = sum(source is not None for source in sources.values())
    known = f"files of {len(there)} of {all_of} benchmarks in {data_dir}; the others are generated"
    remedy = "" if there else f"{PROGRAM} download --suite NAME --data-dir {data_dir} (`{PROGRAM} list benchmarks`)"
    yield Finding("data", "ok" if there else "note", known, remedy)
    elsewhere = os.environ.get("LMUData")  # noqa: SIM112 - where VLMEvalKit itself keeps its files
    if elsewhere and Path(elsewhere).expanduser().resolve() != data_dir.resolve():
        yield Finding("LMUData", "note", f"{elsewhere} is not read", f"add --data-dir {elsewhere}")


def _judge(data_dir: Path, judge: str | None, model: str | None) -> Iterator[Finding]:
    """Check the judge."""
    from uniprune.evaluation.collection import DatasetCollection
    from uniprune.registry import BENCHMARKS

    judged = [name for name in BENCHMARKS.names() if BENCHMARKS.entry(name).metadata.get("judge")]
    real = [name for name in judged if BENCHMARKS.entry(name).metadata.get("source") is not None]
    if judge is None:
        needy = f"none tried; {', '.join(real)} need one"
        yield Finding("judge", "note", needy, f"{PROGRAM} doctor --judge URL --judge-model NAME, or --judge rule")
        return
    try:
        DatasetCollection(data_dir, judge, model).check_scoring(real[:1])
        yield Finding("judge", "ok", f"{judge} replies")
    except UserError as error:
        yield Finding("judge", "missing", str(error).splitlines()[0], "start the server, or use --judge rule")


def _hub() -> Iterator[Finding]:
    """Check whether the hub, or the mirror in its place, replies."""
    from huggingface_hub import constants

    mirror = "HF_ENDPOINT=https://hf-mirror.com before the command takes a mirror"
    remedy = f"{mirror}; or `hf download ID` elsewhere and copy the cache ({constants.HF_HUB_CACHE})"
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "note", "HF_HUB_OFFLINE is set: checkpoints come from the cache only", "unset it")
        return
    try:
        with urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=PATIENCE):
            yield Finding("hub", "ok", f"{constants.ENDPOINT} replies")
    except urllib.error.HTTPError as error:
        yield Finding("hub", "ok", f"{constants.ENDPOINT} replies (HTTP {error.code})")
    except OSError as error:
        yield Finding("hub", "note", f"{constants.ENDPOINT} cannot be reached ({error})", remedy)
