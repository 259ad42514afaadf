"""What `check` shows: one table per method, the reasons of failures below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from uniprune.conformance.suite import CHECKS, CheckedFamily, proves, title

STYLES = {"pass": "green", "FAIL": "bold red", "reported": "cyan", "n.a.": "dim"}


def table(name: str, findings: Sequence[CheckedFamily]) -> Table:
    """Checks by families."""
    families = list(dict.fromkeys(finding.family for finding in findings))
    words = {(finding.check, finding.family): finding.verdict.word for finding in findings}
    shown = Table("check", *families, "what it proves", title=name, title_justify="left", box=None, pad_edge=False)
    for check in CHECKS:
        verdicts = [words[title(check), family] for family in families]
        shown.add_row(title(check), *(f"[{STYLES[word]}]{word}[/]" for word in verdicts), proves(check))
    return shown


def notes(findings: Iterable[CheckedFamily]) -> list[str]:
    """One line per failure, then per measurement and per reason why there is nothing to check."""
    told: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        if finding.verdict.word != "pass":
            key = (finding.verdict.word, finding.check, finding.verdict.detail)
            told.setdefault(key, []).append(finding.family)
    order = list(STYLES)
    lines = sorted(told.items(), key=lambda item: order.index(item[0][0]))
    return [f"{word:<9} {check} ({', '.join(families)}): {detail}" for (word, check, detail), families in lines]


def rows(name: str, findings: Iterable[CheckedFamily]) -> list[dict[str, Any]]:
    """The same for machines."""
    meaning = {title(check): proves(check) for check in CHECKS}
    return [
        {
            "method": name,
            "family": finding.family,
            "check": finding.check,
            "verdict": finding.verdict.word,
            "detail": finding.verdict.detail,
            "proves": meaning[finding.check],
        }
        for finding in findings
    ]
