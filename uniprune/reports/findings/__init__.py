"""The findings of UniPruneBench (arXiv 2511.02650) as tests on stored runs."""

from __future__ import annotations

from uniprune.reports.findings.findings import FINDINGS
from uniprune.reports.findings.pairs import pairs_csv
from uniprune.reports.findings.power import PowerAnalysis, power_lines
from uniprune.reports.findings.study import Finding, Study

__all__ = ["FINDINGS", "Finding", "PowerAnalysis", "Study", "pairs_csv", "power_lines"]
