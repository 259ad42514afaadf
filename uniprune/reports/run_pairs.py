"""Runs to compare: found by folder, identity or method, and paired with those of the other side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from uniprune.errors import UserError
from uniprune.reports.item_pairs import StoredRun
from uniprune.results.folders import ResultFolders
from uniprune.results.records import RunRecord
from uniprune.results.store import RUN

LISTED = 8
"""Runs that a message names."""


def find_side(word: str, folders: ResultFolders, doubts: list[str]) -> list[StoredRun]:
    """Return the runs that a word means.

    Args:
        word: a folder of runs; the folder of one run; or, of the runs in `folders`, an identity or the beginning of
            one, a method, or `method@ratio`.
        folders: folders to search.
        doubts: receives the reasons why something stored is left out.

    Raises:
        UserError: the word means no run.
    """
    path = Path(word)
    if path.is_dir():
        alone = (path / RUN).is_file()
        stored = ResultFolders([path.resolve().parent if alone else path])
        records = [one for one in stored.required(doubts.append) if not alone or one.identity == path.resolve().name]
        if not records:
            raise UserError(f"{word} is not the folder of a run that can be read: {'; '.join(doubts)}")
    else:
        stored = folders
        every = folders.required(doubts.append)
        records = [one for one in every if _means(word, one)]
        if not records:
            names = dict.fromkeys(_named(one) for one in every)
            known = ", ".join([*names][:LISTED]) + f" and {len(names) - LISTED} more" * (len(names) > LISTED)
            raise UserError(
                f"{word!r} is no folder, and no run in {folders.names} has this identity or method; there are {known}"
            )
    return [StoredRun(one, stored, f"{one.model.name} {_named(one)} ({one.identity})") for one in records]


def paired_runs(
    first: Sequence[StoredRun], second: Sequence[StoredRun]
) -> tuple[list[tuple[StoredRun, StoredRun]], list[str]]:
    """Pair the runs of two sides that agree in model, method, ratio, protocol, question, seed and limit.

    What is the same for all runs of each side need not agree: it is what the sides are compared in.

    Returns:
        The pairs, and notes on runs without a partner.

    Raises:
        UserError: no two runs agree.
    """
    keys = [[_key(one.record) for one in side] for side in (first, second)]
    places = range(len(keys[0][0]))
    matter = [i for i in places if any(len({key[i] for key in side}) > 1 for side in keys)]
    sides: list[dict[tuple[object, ...], list[StoredRun]]] = []
    for side, own in zip((first, second), keys, strict=True):
        found: dict[tuple[object, ...], list[StoredRun]] = defaultdict(list)
        for one, key in zip(side, own, strict=True):
            found[tuple(key[i] for i in matter)].append(one)
        sides.append(found)
    pairs, notes = [], []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        mine, theirs = (side.get(key, []) for side in sides)
        if len(mine) == len(theirs) == 1:
            pairs.append((mine[0], theirs[0]))
        elif not mine or not theirs:
            notes.append(f"only in {'A' if mine else 'B'}: {_labels([*mine, *theirs])}")
        else:
            notes.append(f"not paired, because several are alike; name their identities: {_labels([*mine, *theirs])}")
    if not pairs:
        raise UserError("\n".join(["no run of A has its like in B", *notes]))
    return pairs, notes


def _key(record: RunRecord) -> tuple[object, ...]:
    """Return what runs of two sides are paired by."""
    setup = record.setup
    return (
        *(record.model.name, setup.method.spelled_out, setup.ratio, setup.protocol, setup.question, setup.seed),
        *(setup.limit, setup.dtype, setup.attention, setup.device),
    )


def _means(word: str, record: RunRecord) -> bool:
    """Check whether a word means a run: the beginning of its identity, its method, or method@ratio."""
    identity = len(word) >= 4 and record.identity.startswith(word)
    return identity or word in (record.setup.method.name, _named(record))


def _named(record: RunRecord) -> str:
    """Return `method@ratio`; the un-pruned model has no ratio."""
    method = record.setup.method
    return method.name if method.kind == "none" else f"{method.name}@{record.setup.ratio:g}"


def _labels(runs: Sequence[StoredRun]) -> str:
    """Return the labels of some runs, the first few of many."""
    return ", ".join(one.label for one in runs[:LISTED]) + f" and {len(runs) - LISTED} more" * (len(runs) > LISTED)
