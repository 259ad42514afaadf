"""UniPrune: a benchmark harness for visual token pruning in multimodal large language models.

    from uniprune import prune
    from uniprune.methods import DivPrune

    with prune(model, DivPrune(ratio=0.111)):
        model.generate(**inputs)

Names in `__all__` are imported at first use, so `import uniprune` loads neither torch nor transformers.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniprune.engine import PrefillReport, PromptInfo, QuestionFinder, Session, prune
    from uniprune.errors import PruningError, UnsupportedError, UserError
    from uniprune.modeling.adapter import ModelAdapter
    from uniprune.pruning.base import Compose, IntraLLM, PreLLM, Pruner, Selection, Stage
    from uniprune.pruning.load import load_method
    from uniprune.pruning.view import View
    from uniprune.registry import load_plugin, register_benchmark, register_method, register_model

__all__ = [
    "Compose",
    "IntraLLM",
    "ModelAdapter",
    "PreLLM",
    "PrefillReport",
    "PromptInfo",
    "Pruner",
    "PruningError",
    "QuestionFinder",
    "Selection",
    "Session",
    "Stage",
    "UnsupportedError",
    "UserError",
    "View",
    "__version__",
    "load_method",
    "load_plugin",
    "prune",
    "register_benchmark",
    "register_method",
    "register_model",
]

_EXPORTS = {
    "engine": ("PrefillReport", "PromptInfo", "QuestionFinder", "Session", "prune"),
    "errors": ("PruningError", "UnsupportedError", "UserError"),
    "modeling.adapter": ("ModelAdapter",),
    "pruning.base": ("Compose", "IntraLLM", "PreLLM", "Pruner", "Selection", "Stage"),
    "pruning.load": ("load_method",),
    "pruning.view": ("View",),
    "registry": ("load_plugin", "register_benchmark", "register_method", "register_model"),
}
"""Module -> the names it provides; the imports above repeat them for type checkers and editors."""

try:
    __version__ = version("uniprune")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0.1.0.dev0"

# In a checkout methods/, models/ and benchmarks/ are siblings of this folder, in a wheel they are inside it; both are
# imported as `uniprune.methods`, …, which no `models` package of a user can hide.
if not (Path(__file__).parent / "methods").is_dir():
    __path__.append(str(Path(__file__).parent.parent))


def __getattr__(name: str) -> Any:
    """Import a public name at first use (PEP 562)."""
    for module, names in _EXPORTS.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names and what is imported already."""
    return sorted({*globals(), *__all__})
