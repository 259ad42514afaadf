"""Conformance checks: the rules of a pruning method, verified on tiny random-weight models (`run.py check METHOD`)."""

from uniprune.conformance.check_result import CheckResult
from uniprune.conformance.method_under_test import MethodUnderTest, Models
from uniprune.conformance.suite import CHECKS, CheckedFamily, examine, examine_all, rule, title

__all__ = [
    "CHECKS",
    "CheckResult",
    "CheckedFamily",
    "MethodUnderTest",
    "Models",
    "examine",
    "examine_all",
    "rule",
    "title",
]
