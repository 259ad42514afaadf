"""The errors a user may see. Each names the value, what was expected and the remedy."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from dataclasses import dataclass


class UserError(Exception):
    """The user must change something: printed as one clear message without a traceback, exit code 2."""


class UnsupportedError(UserError):
    """A combination that cannot give right results (say, a sliding-window decoder) and is therefore refused."""


class PruningError(RuntimeError):
    """A method broke its contract (duplicate indices, wrong count, …). Names the method; exit code 1."""


@dataclass(frozen=True)
class Failure:
    """An error as plain text, to be told later or by another process.

    Attributes:
        message: what to say. user: whether it was a `UserError`. trace: the traceback, for `--debug`.
    """

    message: str
    user: bool
    trace: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """The failure that an error is."""
        user = isinstance(error, UserError)
        message = str(error) if user else f"{type(error).__name__}: {error}\n(--debug shows where)"
        return cls(message, user, "".join(traceback.format_exception(error)))


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """`unknown method 'divprun'; did you mean 'divprune'?`, or the whole list when nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    else:
        hint = "known: " + ", ".join(names) if names else f"no {kind} is registered"
    return UserError(f"unknown {kind} {name!r}; {hint}")
