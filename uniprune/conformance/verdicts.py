"""What a check may say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Word = Literal["pass", "FAIL", "reported", "n.a."]


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check of one method on one family.

    Attributes:
        word: "pass", "FAIL", "reported" (a number, no judgement) or "n.a." (nothing to check).
        detail: what was seen, or why there is nothing to see.
    """

    word: Word
    detail: str = ""


def passed(detail: str = "") -> CheckResult:
    """The method keeps the rule."""
    return CheckResult("pass", detail)


def failed(detail: str) -> CheckResult:
    """The method breaks the rule."""
    return CheckResult("FAIL", detail)


def reported(detail: str) -> CheckResult:
    """A measurement, or a rule the method declares not to follow."""
    return CheckResult("reported", detail)


def skipped(reason: str) -> CheckResult:
    """The rule does not apply."""
    return CheckResult("n.a.", reason)


def judged(problems: list[str], detail: str = "") -> CheckResult:
    """Passed with `detail` when there are no problems; else failed with the first and the number of others."""
    if not problems:
        return passed(detail)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return failed(problems[0] + more)
