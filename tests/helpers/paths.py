"""Folders that tests read from."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
PLUGINS = TESTS / "plugins"
GOLDEN = TESTS / "golden"
