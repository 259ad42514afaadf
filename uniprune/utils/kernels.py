"""Kernels written in Triton: used where they work and agree with torch, after one comparison."""

from __future__ import annotations

import warnings
from collections.abc import Callable


def proven(what: str, slower: str, check: Callable[[], str]) -> bool:
    """Return whether a kernel can be built and `check` finds no difference from torch; warn once if not.

    A machine may lack what Triton compiles with; a wrong result would be worse, and neither may end a run.

    Args:
        what: what the kernel computes, with its verb.
        slower: how torch computes it.
        check: returns the first difference, "" for none, or raises whatever Triton's compilers do.
    """
    try:
        wrong = check()
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}".splitlines()[0]
    if wrong:
        message = f"{what} {slower}, slower but right: the Triton kernel failed ({wrong})"
        warnings.warn(message, RuntimeWarning, stacklevel=4)
    return not wrong
