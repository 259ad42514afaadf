"""Documentation names what exists: paths, modules and their names, commands with their options, make targets, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pkgutil import resolve_name

import pytest

from tests.helpers.paths import ROOT
from uniprune.cli import discover
from uniprune.cli.parser import build_parser

PAGES = sorted(
    file for glob in ("*.md", "docs/**/*.md", "models/**/*.md", ".github/**/*.md") for file in ROOT.glob(glob)
)
IGNORED = {"docs/add-a-model.md: tests/test_vip_llava.py", "docs/selection-speed.md: docs/performance/selections.png"}
"""Files that a page has its reader write."""
PATH = re.compile(r"(?<![\w./@-])((?:uniprune|methods|models|benchmarks|configs|tests|docs)/[\w./*-]*)")
NAME = re.compile(r"(?<![\w./-])(uniprune(?:\.\w+)+)")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
MODULE = re.compile(r"^(?:\.venv/bin/)?python3? -m ([\w.]+)")
COMMAND = re.compile(r"^(?:(?:\.venv/bin/)?python3? run\.py|uniprune) (.+)")
TARGET = re.compile(r"\bmake ([a-z][a-z-]+)")

Found = dict[str, list[str]]


def code(page: str) -> Iterator[str]:
    """Yield the lines of shell blocks, and inline code; comments, pipes and redirections are cut off."""
    blocks = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    commands = [block for language, block in blocks.findall(page) if language == "sh"]
    for text in (*commands, *re.findall(r"`([^`\n]+)`", blocks.sub("", page))):
        for line in text.replace("\\\n", " ").splitlines():
            yield re.split(r"\s#|\s[|>]\s|\s&&", line, maxsplit=1)[0].strip()


def anywhere(pattern: re.Pattern[str]) -> Found:
    """Return page -> matches of a pattern, in text and code."""
    found = {page.relative_to(ROOT).as_posix(): pattern.findall(page.read_text(encoding="utf-8")) for page in PAGES}
    return {page: sorted({*names}) for page, names in found.items() if names}


def in_code(pattern: re.Pattern[str]) -> Found:
    """Return page -> matches of a pattern in lines of code."""
    found = {
        page.relative_to(ROOT).as_posix(): [
            name for line in code(page.read_text(encoding="utf-8")) for name in pattern.findall(line)
        ]
        for page in PAGES
    }
    return {page: sorted({*names}) for page, names in found.items() if names}


def missing(found: Found, exists: Callable[[str, str], bool]) -> set[str]:
    """Return "page: name" of everything that does not exist."""
    assert len(found) >= 3, "the pattern has stopped matching"
    return {f"{page}: {name}" for page, names in found.items() for name in names if not exists(page, name)}


def test_paths_exist() -> None:
    found = anywhere(PATH)
    assert sum(map(len, found.values())) > 100
    assert missing(found, lambda page, path: any(ROOT.glob(path.rstrip("./")))) == IGNORED


def test_links_lead_to_files() -> None:
    found = anywhere(LINK)
    assert not missing(found, lambda page, link: (ROOT / page).parent.joinpath(link).exists())


def test_names_of_the_package_exist() -> None:
    def exists(page: str, name: str) -> bool:
        try:
            resolve_name(name)
        except (ImportError, AttributeError):
            return False
        return True

    assert not missing(anywhere(NAME), exists)


def test_modules_that_pages_run_exist() -> None:
    # vLLM is in the environment of `make serving` only.
    assert not missing(
        in_code(MODULE), lambda page, module: module.startswith("vllm.") or find_spec(module) is not None
    )


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    found = in_code(TARGET)
    assert not missing(found, lambda page, target: target in targets)
    assert targets - {"help", "clean"} <= {name for names in found.values() for name in names}


def test_commands_have_the_options_that_pages_use(capsys: pytest.CaptureFixture[str]) -> None:
    commands = discover()
    parser = build_parser(commands)

    def parses(page: str, line: str) -> bool:
        words = shlex.split(line.replace("$seed", "0"))
        if words[0] in ("--help", "--version") or words == [*commands.keys() & words]:
            return True  # a command that is named without its arguments
        try:
            parser.parse_args(words if words[0] in commands else ["run", *words])
        except SystemExit:
            return False
        return True

    assert not missing(in_code(COMMAND), parses), capsys.readouterr().err
