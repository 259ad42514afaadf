"""What a run record says about the software and the machine."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import uniprune
from uniprune.results.records import Environment
from uniprune.utils.paths import ROOT

PACKAGES = (
    "torch",
    "torchvision",
    "triton",
    "transformers",
    "tokenizers",
    "accelerate",
    "ms-vlmeval",
    "numpy",
    "pillow",
)


def environment(device: str) -> Environment:
    """This process's software and machine. `device` is "cpu", "cuda" (torch's current one), "cuda:N" or "balanced"."""
    versions = {"python": platform.python_version(), "uniprune": uniprune.__version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    versions["torch"] = torch.__version__  # also says for which CUDA it was built
    return Environment(
        versions=versions,
        git=git_revision(),
        device=device_name(device),
        threads=torch.get_num_threads(),
    )


def device_name(device: str) -> str:
    """Name of a GPU, of all of them if layers are spread, or of the processor."""
    if device == "cpu":
        return processor_name()
    if device == "balanced":
        return " + ".join(torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count()))
    return torch.cuda.get_device_name(device)


def processor_name() -> str:
    """Model of the processor where the system tells it, as Linux does, else its architecture."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def git_revision() -> str | None:
    """Commit of this checkout, "+dirty" with uncommitted changes; None outside a checkout or without git."""
    if not (ROOT / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + "+dirty" * bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    """Output of a git command in the checkout."""
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
