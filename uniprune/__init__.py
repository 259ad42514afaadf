"""UniPrune: a benchmark harness for visual token pruning in multimodal large language models."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    __version__ = version("uniprune")
except PackageNotFoundError:  # a checkout that nobody installed
    __version__ = "0.1.0.dev0"

# In a checkout methods/, models/ and benchmarks/ are beside this folder, in a wheel inside it; either way they are
# `uniprune.methods`, …, so that a user's own `models` package and ours do not meet.
if not (Path(__file__).parent / "methods").is_dir():
    __path__.append(str(Path(__file__).parent.parent))
