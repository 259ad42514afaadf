"""The page of what methods' releases do and their papers do not mention: `python run.py cards --releases`.

A finding is data of a method's card: `@register_method(…, releases={"module.test": "Finding."})`, with the test in
tests/methods/ that shows it.
"""

from __future__ import annotations

from collections.abc import Mapping

from uniprune.registry import Entry
from uniprune.reports.method_cards import anchors, embedded, link_to_paper, link_to_repository

_INTRO = """\
# What releases do

Generated from the methods' files by `python run.py cards --releases > docs/releases.md`; edit those instead.
What the released code of a method does and its paper does not mention, or describes otherwise, as far as it was noticed
when its rule was written down. Every line names the test that computes it: `python -m pytest tests/methods -k NAME`.
Where both readings make sense a field chooses (`--set field=value`). The [cards](methods.md) list all fields and, under
"Deviations", what is different here.

A finding holds for the code at the time it was read; the tests of the reference vectors name the commits. Of newer
methods abstracts and READMEs were at hand, not always the whole paper, which may mention more. It is no judgement of a
method: most change few numbers.
"""


def findings(entry: Entry) -> Mapping[str, str]:
    """Return test ("module.test" in tests/methods/) -> what it shows about a method's release."""
    found: Mapping[str, str] = entry.metadata.get("releases", {})
    return found


def release_cards() -> str:
    """Return the page: a section per method that has findings."""
    with_findings = [entry for entry in embedded() if findings(entry)]
    total = sum(len(findings(entry)) for entry in with_findings)
    index = ", ".join(
        f"[{entry.name}](#{anchor})"
        for entry, anchor in zip(with_findings, anchors([entry.name for entry in with_findings]), strict=True)
    )
    head = f"{total} findings about {len(with_findings)} methods: {index}.\n"
    return "\n".join([_INTRO, head, *map(_section, with_findings)])


def _section(entry: Entry) -> str:
    paper = link_to_paper(entry.metadata.get("paper", ""))
    sources = [paper, link_to_repository(entry.metadata.get("code", "")) or "no code released"]
    lines = [f"* {text} Shown by {_test(test)}." for test, text in findings(entry).items()]
    return "\n".join([f"## {entry.name}\n", ", ".join(sources) + ".\n", *lines]) + "\n"


def _test(name: str) -> str:
    """Link to the file of a test."""
    module, function = name.split(".")
    return f"[`{function}`](../tests/methods/{module}.py)"
