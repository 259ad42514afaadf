"""The rules every pruning method keeps, as checks on tiny random-weight models: `python run.py check METHOD`."""

from uniprune.conformance.subject import MethodUnderTest, Models
from uniprune.conformance.suite import CHECKS, CheckedFamily, examine, examine_all, proves, title
from uniprune.conformance.verdicts import CheckResult

__all__ = [
    "CHECKS",
    "CheckResult",
    "CheckedFamily",
    "MethodUnderTest",
    "Models",
    "examine",
    "examine_all",
    "proves",
    "title",
]
