"""Errors that reach users. Each message names the value, the expectation and the remedy."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from dataclasses import dataclass


class UserError(Exception):
    """An error that the user can mend: printed as one message without a traceback, exit code 2."""


class UnsupportedError(UserError):
    """A combination that is refused because its results would be wrong, such as a sliding-window decoder."""


class PruningError(RuntimeError):
    """A method that broke its contract (duplicate indices, wrong count, …): the message names it, exit code 1."""


class NoScoreError(RuntimeError):
    """A run that ended without a score because none of its rows could be asked: one message, exit code 1."""


@dataclass(frozen=True)
class Failure:
    """An error as plain text, to be printed later or by another process.

    Attributes:
        message: one line for the user.
        user: whether the error was a `UserError`.
        trace: the traceback, for `--debug`.
    """

    message: str
    user: bool
    trace: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Convert an exception."""
        user = isinstance(error, UserError)
        plain = user or isinstance(error, NoScoreError)
        message = str(error) if plain else f"{type(error).__name__}: {error}\n(--debug shows where)"
        return cls(message, user, "".join(traceback.format_exception(error)))


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return `unknown method 'divprun'; did you mean 'divprune'?`, or all known names where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    else:
        hint = "known: " + ", ".join(names) if names else f"no {kind} is registered"
    return UserError(f"unknown {kind} {name!r}; {hint}")
