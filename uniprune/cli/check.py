"""`python run.py check FILE_OR_NAME`: run the conformance checks on a method."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniprune.errors import UserError
from uniprune.registry import METHODS, MODELS, load_plugin
from uniprune.utils.console import say, stdout
from uniprune.utils.json_text import to_json

if TYPE_CHECKING:
    from uniprune.conformance.suite import CheckedFamily

HELP = "run the conformance checks on a method"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `check`."""
    parser.add_argument("target", metavar="FILE_OR_NAME", help="Python file that registers methods, or a method's name")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="method fields")
    parser.add_argument(
        "--family", nargs="+", default=["*"], metavar="NAME", help="model families (default: all); * is a wildcard"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def act(options: argparse.Namespace) -> int:
    """Check a method, or every method that a file registers, on tiny models of families; return 1 on a failure."""
    from uniprune.conformance.suite import examine_all
    from uniprune.conformance.table import notes, rows, show
    from uniprune.evaluation.method_spec import MethodSpec, parse_settings
    from uniprune.modeling.tiny import LAYERS

    choices = [MethodSpec(name, settings=parse_settings(options.set)) for name in targets(options.target)]
    pruners = {choice.name: choice.pruner() for choice in choices}
    for pruner in pruners.values():
        pruner.schedule(LAYERS)  # raises UserError for a layer that the tiny models do not have
    families = families_of(options.family)
    console = stdout(180)
    listed: list[dict[str, Any]] = []
    found: list[CheckedFamily] = []
    for name, pruner in pruners.items():
        mine = examine_all(pruner, families)
        found += mine
        if options.json:
            listed += rows(name, mine)
        else:
            say(name)
            show(mine)
            for line in notes(mine):
                style = "red" if line.startswith("FAIL") else None
                console.print(line, style=style, highlight=False, markup=False, soft_wrap=not console.is_terminal)
    if options.json:
        sys.stdout.write(to_json(listed, indent=1) + "\n")
    else:
        console.print(summary(found), highlight=False)
    return int(any(finding.result.outcome == "FAIL" for finding in found))


def summary(findings: Sequence[CheckedFamily]) -> str:
    """Return the last line: the number of checks that passed or failed."""
    words = [finding.result.outcome for finding in findings]
    failures = words.count("FAIL")
    return (
        f"{failures} of {len(words)} checks failed" if failures else f"{words.count('pass')} checks passed, none failed"
    )


def families_of(patterns: Sequence[str]) -> list[str]:
    """Return the families that match any of some names or patterns.

    Raises:
        UserError: no family has such a name.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        names = MODELS.names(pattern) or [MODELS.entry(pattern).name]
        found.update(dict.fromkeys(names))
    return list(found)


def targets(target: str) -> list[str]:
    """Return the names of the methods that a file registers, or the name itself.

    Raises:
        UserError: the file does not exist, fails to import or registers no method.
    """
    path = Path(target)
    if path.suffix != ".py":
        return [target]
    if not _registered(path):
        load_plugin(path)
    names = _registered(path)
    if not names:
        raise UserError(f"{target!r} registers no method; decorate a class with @register_method(NAME)")
    return names


def _registered(path: Path) -> list[str]:
    """Return the methods whose class is defined in a file."""
    files = {name: getattr(sys.modules.get(METHODS.get(name).__module__), "__file__", None) for name in METHODS.names()}
    return [name for name, file in files.items() if file and Path(file).resolve() == path.resolve()]
