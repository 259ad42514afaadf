"""Folders of the installation."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent

ROOT = PACKAGE if (PACKAGE / "configs").is_dir() else PACKAGE.parent
"""Folder of methods/, models/, benchmarks/ and configs/: the package in a wheel, its parent in a checkout."""

PROGRAM = "uniprune" if ROOT == PACKAGE else "python run.py"
"""Command line of this installation, for help texts and remedies in messages."""
