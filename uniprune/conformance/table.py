"""Output of `check`: one table per method, reasons of failures below it, rows for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.text import Text

from uniprune.conformance.suite import CHECKS, CheckedFamily, rule, title
from uniprune.utils.terminal import Column, show_table

STYLES = {"pass": "green", "FAIL": "bold red", "reported": "cyan", "n.a.": "dim"}


def show(findings: Sequence[CheckedFamily]) -> None:
    """Print a table of checks with their outcomes; `notes` has the families of any but "pass"."""
    outcomes: dict[str, set[str]] = {}
    for finding in findings:
        outcomes.setdefault(finding.check, set()).add(finding.result.outcome)
    rows = []
    for check in CHECKS:
        results = [Text(outcome, style) for outcome, style in STYLES.items() if outcome in outcomes[title(check)]]
        rows.append((title(check), Text(", ").join(results), rule(check)))
    show_table([Column("check"), Column("result"), Column("rule", prose=True)], rows)


def notes(findings: Sequence[CheckedFamily]) -> list[str]:
    """Return one line per failure, then per measurement and per reason why there is nothing to check."""
    notes: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        if finding.result.outcome != "pass":
            key = (finding.result.outcome, finding.check, finding.result.detail)
            notes.setdefault(key, []).append(finding.family)
    order, every = list(STYLES), {finding.family for finding in findings}
    lines = sorted(notes.items(), key=lambda item: order.index(item[0][0]))
    return [
        f"{outcome:<9} {check} ({'all families' if len(names) == len(every) > 1 else ', '.join(names)}): {detail}"
        for (outcome, check, detail), names in lines
    ]


def rows(name: str, findings: Iterable[CheckedFamily]) -> list[dict[str, Any]]:
    """Return one row per check and family, for JSON."""
    rules = {title(check): rule(check) for check in CHECKS}
    return [
        {
            "method": name,
            "family": finding.family,
            "check": finding.check,
            "outcome": finding.result.outcome,
            "detail": finding.result.detail,
            "rule": rules[finding.check],
        }
        for finding in findings
    ]
