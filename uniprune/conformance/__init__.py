"""The rules every pruning method keeps, as checks on tiny random-weight models: `python run.py check METHOD`."""

from uniprune.conformance.subject import Models, Subject
from uniprune.conformance.suite import CHECKS, Finding, examine, examine_all, proves, title
from uniprune.conformance.verdicts import Verdict

__all__ = ["CHECKS", "Finding", "Models", "Subject", "Verdict", "examine", "examine_all", "proves", "title"]
