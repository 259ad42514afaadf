"""Agreement of the rule judge with the benchmarks' own verdicts on real answers, printed with each score by rule.

The figures of a benchmark stand here only; a test computes them again from `tests/helpers/data/mathvision`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Agreement:
    """A comparison of verdicts on published answers.

    Attributes:
        questions: which ones.
        answers: how many there are of each model.
        same: model -> of these, those on which rule and benchmark agree.
    """

    questions: str
    answers: int
    same: Mapping[str, int]

    def __str__(self) -> str:
        """Return the note on a score."""
        same, answers = sum(self.same.values()), self.answers * len(self.same)
        return (
            f"rule judge: agrees with the benchmark's own verdicts in {100 * same / answers:.1f} % of {answers} "
            f"answers of {' and '.join(self.same)} ({self.questions})"
        )


TESTMINI = Agreement("Math-Vision testmini", 304, MappingProxyType({"LLaVA-1.5-7B": 299, "Qwen-VL-Max": 291}))

MEASURED: Mapping[str, Agreement] = MappingProxyType({"mathvision": TESTMINI, "mathvision-mini": TESTMINI})
"""Registered name -> the comparison made for it."""


def agreement_note(name: str) -> str:
    """Return what is known about the rule judge's verdicts on a benchmark."""
    measured = MEASURED.get(name)
    return str(measured) if measured else "rule judge: agreement with the benchmark's own verdicts not measured"
