"""Software and machine, for run records."""

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
    "numpy",
    "pillow",
)


def environment(device: str) -> Environment:
    """Collect versions and machine; `device` is "cpu", "cuda" (torch's current one), "cuda:N" or "balanced"."""
    versions = {"python": platform.python_version(), "uniprune": uniprune.__version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    versions["torch"] = torch.__version__  # with the CUDA version of the build
    return Environment(
        versions=versions,
        git=git_revision(),
        device=device_name(device),
        threads=torch.get_num_threads(),
    )


def device_name(device: str) -> str:
    """Return the name of the GPU, of all of them for "balanced", or of the processor."""
    if device == "cpu":
        return processor_name()
    if device == "balanced":
        return " + ".join(torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count()))
    return torch.cuda.get_device_name(device)


def processor_name() -> str:
    """Return the processor model from /proc/cpuinfo, or the architecture on other systems."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def git_revision(root: Path = ROOT) -> str | None:
    """Return the commit of a checkout, "+dirty" with uncommitted changes; None without checkout or git."""
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + "+dirty" * bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    """Run a git command in a checkout and return its output."""
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
