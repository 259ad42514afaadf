"""Folders of the installation."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent

ROOT = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
"""Folder of methods/, models/, benchmarks/ and configs/: the package in a wheel, its parent in a checkout."""
