"""Result of a conformance check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["pass", "FAIL", "reported", "n.a."]


@dataclass(frozen=True)
class CheckResult:
    """Result of one check of one method on one family.

    Attributes:
        outcome: "pass", "FAIL", "reported" (a measurement without judgement) or "n.a." (nothing to check).
        detail: observation, or the reason why there is nothing to check.
    """

    outcome: Outcome
    detail: str = ""


def passed(detail: str = "") -> CheckResult:
    """Return the result of a method that keeps the rule."""
    return CheckResult("pass", detail)


def failed(detail: str) -> CheckResult:
    """Return the result of a method that breaks the rule."""
    return CheckResult("FAIL", detail)


def reported(detail: str) -> CheckResult:
    """Return a measurement, or a declared exception from the rule."""
    return CheckResult("reported", detail)


def skipped(reason: str) -> CheckResult:
    """Return the result where the rule does not apply."""
    return CheckResult("n.a.", reason)


def judged(problems: list[str], detail: str = "") -> CheckResult:
    """Return a pass with `detail` if there are no problems, else a failure with the first and the number of others."""
    if not problems:
        return passed(detail)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return failed(problems[0] + more)
