"""Pruning methods, one file each; importing a module registers its method.

Classes are imported at first use: `from uniprune.methods import DivPrune, FastV`.
"""

from typing import Any

from uniprune.registry import METHODS


def __getattr__(name: str) -> Any:
    """Import the class of an embedded method (PEP 562)."""
    if name[:1].isupper() and name in (classes := _classes()):
        return classes[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the class names of the embedded methods."""
    return sorted(_classes())


def _classes() -> dict[str, type]:
    """Return class name -> class of the methods defined in this package; plugins are left out."""
    targets = (METHODS.get(name) for name in METHODS.names())
    return {target.__name__: target for target in targets if target.__module__.startswith(f"{__name__}.")}
