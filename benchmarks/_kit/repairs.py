"""Functions of VLMEvalKit that are replaced while it matches and scores answers."""

from __future__ import annotations

import contextlib
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from .boot import Kit
from .equality import is_equal
from .items import TABLES
from .replacing import replaced


@contextlib.contextmanager
def repaired(kit: Kit, rows: int) -> Iterator[None]:
    """Replace six of the kit's functions while it scores.

    `is_equal` evaluates the prediction as Python code; ours parses arithmetic. `Pool` forks sixteen copies of this
    process for a second of work; ours uses this process. `timestr` names a file in the temporary folder by the second,
    which two scorings can share; ours never repeats, and the file is removed. `dump` rewrites all results after every
    row; ours writes after the last one. `get_pred_file_format` allows text files only, in which "0012" is 12 and "None"
    is missing; ours is pickles. `process_answer` takes a fifth of a millisecond for each of ten right answers of a row;
    ours remembers them.
    """
    stamp, dump = f"uniprune-{uuid.uuid4().hex}", kit.mp_util.dump

    def dump_complete(results: Mapping[Any, Any], file: str) -> None:
        if len(results) in (0, rows):
            dump(results, file)

    try:
        with (
            replaced(kit.mathv, is_equal=is_equal),
            replaced(kit.vqa_eval, process_answer=cache(kit.vqa_eval.process_answer)),
            replaced(kit.image_vqa, mp=types.SimpleNamespace(Pool=_Here)),
            replaced(kit.multiple_choice, timestr=lambda: stamp),
            replaced(kit.mp_util, dump=dump_complete),
            replaced(kit.file, get_pred_file_format=lambda: TABLES),
            replaced(kit.multiple_choice, get_pred_file_format=lambda: TABLES),
        ):
            yield
    finally:
        Path(f"/tmp/{stamp}.{TABLES}").unlink(missing_ok=True)  # the kit writes there whatever the system's setting


class _Here:
    """`multiprocessing.Pool` without processes."""

    def __init__(self, processes: int) -> None:
        self.processes = 1

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any]) -> list[Any]:
        """Return the results in order."""
        return [function(task) for task in tasks]
