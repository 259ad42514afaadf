"""Fidelity between stored runs, computed once and kept beside the answers it was computed from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uniprune.errors import UserError
from uniprune.fidelity import Fidelity, FirstToken, fidelity
from uniprune.files import explain_write, write_atomically
from uniprune.predictions import read_answers
from uniprune.records import RunRecord, Store

Told = dict[str, tuple[str, FirstToken | None]]
"""Row -> answer and distribution of its first token."""


class Likeness:
    """Compares the stored answers of two runs: `likeness(reference, run, dataset)`.

    Reading every answer of every run for each leaderboard would take minutes on full benchmarks, so what was found is
    kept in `results/<identity>/<benchmark>.fidelity.json` for as long as both files of answers stay as they are. Such a
    file may be deleted at any time.

    Args:
        store: where the runs are.
    """

    def __init__(self, store: Store) -> None:
        self._root = store.root
        self._references: dict[Path, Told] = {}

    def __call__(self, reference: RunRecord, run: RunRecord, dataset: str) -> Fidelity | None:
        """None without answers to compare. Raises UserError where a stored line is damaged."""
        base, own = (self._root / one.identity / f"{dataset}.jsonl" for one in (reference, run))
        if not (base.is_file() and own.is_file()):
            return None
        state = [reference.identity, *(number for file in (base, own) for number in _state(file))]
        path = own.with_suffix(".fidelity.json")
        kept = _kept(path)
        if kept.get("state") == state:
            return Fidelity(**kept["fidelity"])
        if base not in self._references:
            self._references[base] = told(base)
        result = fidelity(self._references[base], told(own))
        if result is not None:
            text = json.dumps({"state": state, "fidelity": asdict(result)})
            with contextlib.suppress(UserError), explain_write(path):  # results may be read-only
                write_atomically(path, text + "\n")
        return result


def told(path: Path) -> Told:
    """What a file of answers says; rows that could not be asked and a line still being written are left out."""
    data = path.read_bytes()
    answers = read_answers(data[: data.rfind(b"\n") + 1], path)
    return {answer.index: (answer.prediction, answer.first) for answer in answers if answer.error is None}


def _state(path: Path) -> tuple[int, int]:
    """What changes with a file's content."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _kept(path: Path) -> Mapping[str, Any]:
    """What was found before; empty where there is nothing, or a file that was cut."""
    try:
        kept: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return kept
