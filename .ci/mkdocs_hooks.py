"""Adds to the site, under `source/`, the files of the repository that its navigation or pages link to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
REPEATED = re.compile(r"(\]\(#[^)]*)-(\d+)\)")
"""A link to a heading whose slug occurs before: GitHub numbers it `name-1`, Python-Markdown `name_1`."""
IN_NAVIGATION = ("AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md")


def leaving(page: File) -> re.Pattern[str]:
    """Match the links of one page that leave `docs/`: one `../` more than the page's folders are deep."""
    return re.compile(r"\]\(" + re.escape("../" * (page.src_uri.count("/") + 1)) + r"([^)#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add files of the repository; a link to one that does not exist stays broken and fails the strict build."""
    linked = {path for page in files.documentation_pages() for path in leaving(page).findall(page.content_string)}
    for path in sorted(linked.union(IN_NAVIGATION)):
        if (ROOT / path).is_file():
            files.append(File.generated(config, f"source/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links between `docs/` and the rest of the repository to where the site has these files."""
    if page.file.src_uri.startswith("source/"):  # a file of the repository's root
        return markdown.replace("](docs/", "](../")
    above = "../" * page.file.src_uri.count("/")
    return REPEATED.sub(r"\1_\2)", leaving(page.file).sub(rf"]({above}source/\1", markdown))
