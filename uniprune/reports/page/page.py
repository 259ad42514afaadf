"""The page as HTML: a template, its scripts, and compressed data and plotting library."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from uniprune import __version__
from uniprune.errors import UserError
from uniprune.reports.page.cards import cards
from uniprune.reports.page.cells import columns, rows
from uniprune.reports.page.items import ItemOptions, items
from uniprune.reports.page.provenance import runs
from uniprune.reports.page.served import served
from uniprune.results.conditions import limit_notes
from uniprune.results.leaderboard import Leaderboard
from uniprune.results.table import ResultTable
from uniprune.utils.console import write
from uniprune.utils.json_text import to_json

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("core", "table", "legend", "plot", "curves", "radar", "method", "run", "kept", "items", "served", "start")
"""Parts of the page's script, in order."""


def page_data(
    board: Leaderboard, options: ItemOptions, links: Mapping[str, str], roots: Iterable[Path] = ()
) -> dict[str, Any]:
    """Return everything that the page shows, as JSON.

    Args:
        board: the leaderboard, whose runs are on the page.
        options: items to show.
        links: identity of a run -> link from the page to its folder.
        roots: folders of runs, in which the load of served models may be stored.
    """
    records = [run for group in board.groups for run in group.runs]
    provenance, environments = runs(records)
    return {
        "made": {"when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "version": __version__},
        "alerts": limit_notes(board.groups),
        "notes": board.notes,
        "columns": columns(board),
        "rows": rows(board),
        "equal": _plain(board.equal_flops()),
        "runs": provenance,
        "environments": environments,
        "links": dict(links),
        "methods": cards(dict.fromkeys(run.setup.method.name for run in records)),
        "items": items(records, options),
        "served": served(roots),
    }


def report_page(board: Leaderboard, options: ItemOptions, links: Mapping[str, str], roots: Iterable[Path] = ()) -> str:
    """Return a page that needs no other file and no network; arguments as for `page_data`.

    Raises:
        UserError: the plotting library is not installed.
    """
    library = packed(plotly())  # before what takes long
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html").render(
        style=_asset("style.css"),
        script="\n".join(_asset(f"{name}.js") for name in SCRIPTS),
        data=packed(to_json(page_data(board, options, links, roots))),
        plotly=library,
    )


def write_page(board: Leaderboard, options: ItemOptions, path: Path, roots: Iterable[Path] = ()) -> None:
    """Write the page, with links to the runs' records relative to its folder.

    Args:
        board: the leaderboard.
        options: items to show, and the place of predictions, in whose folders the records are.
        path: file to write.
        roots: as for `page_data`.

    Raises:
        UserError: it cannot be written, or the plotting library is not installed.
    """
    start = path.absolute().parent
    folders = {
        run.identity: options.answers(run.identity, name).absolute().parent
        for group in board.groups
        for run in group.runs
        for name in list(run.datasets)[:1]
    }
    links = {identity: Path(os.path.relpath(folder, start)).as_posix() for identity, folder in folders.items()}
    write(path, report_page(board, options, links, roots))


def _asset(name: str) -> str:
    """Return a file of the page."""
    return (ASSETS / name).read_text(encoding="utf-8")


def packed(text: str) -> str:
    """Return a text compressed, in characters that a page may hold."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def plotly() -> str:
    """Return the plotting library's script.

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec("plotly")
    script = Path(spec.origin).parent / "package_data" / "plotly.min.js" if spec and spec.origin else None
    if script is None or not script.is_file():
        raise UserError("the page draws with plotly, which is not installed; run: pip install 'plotly>=6'")
    return script.read_text(encoding="utf-8")


def _plain(table: ResultTable) -> dict[str, Any]:
    """Return a table as texts."""
    return {"columns": list(table.columns), "rows": table.texts(), "notes": list(table.notes)}
