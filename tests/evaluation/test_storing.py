"""Files of a run after something happened to them, or after it was run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Dataset
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.modeling.loading import LoadedModel
from uniprune.results.records import RunRecord
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress


def evaluate(loaded: LoadedModel, output: Path, dataset: Dataset, progress: RunProgress | None = None) -> RunRecord:
    run = Run(loaded, MethodSpec("none"), RunOptions(limit=4, batch_size=2, max_new_tokens=2))
    return run.evaluate([dataset], Store(output), progress or RunProgress(4, Console(quiet=True)))


class Removing(RunProgress):
    """Removes the predictions once the first batch is stored."""

    def __init__(self, output: Path) -> None:
        super().__init__(4, Console(quiet=True))
        self.output = output

    def advance(self, rows: int) -> None:
        if rows == 2:
            for path in self.output.glob("*/small.jsonl"):
                path.rename(path.with_suffix(".moved"))


def test_predictions_removed_during_a_run_are_not_scored(loaded: LoadedModel, small: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"small\.jsonl holds \d of 4 predictions: .* runs the missing rows"):
        evaluate(loaded, tmp_path, small, Removing(tmp_path))
    [record] = Store(tmp_path).records()
    assert record.datasets["small"].score is None
    assert evaluate(loaded, tmp_path, small).datasets["small"].score is not None
    assert len(next(tmp_path.glob("*/small.jsonl")).read_text().splitlines()) == 4


def test_a_finished_run_keeps_its_score_until_there_is_a_new_one(
    loaded: LoadedModel, small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(loaded, tmp_path, small).datasets["small"]

    def stopped(*words: Any, **named: Any) -> None:
        raise KeyboardInterrupt("while scoring")

    monkeypatch.setattr(small, "score", stopped)
    with pytest.raises(KeyboardInterrupt, match="while scoring"):
        evaluate(loaded, tmp_path, small)
    [record] = Store(tmp_path).records()
    assert record.datasets["small"] == first

    path = next(tmp_path.glob("*/small.jsonl"))  # other predictions have no score of before
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(KeyboardInterrupt, match="while scoring"):
        evaluate(loaded, tmp_path, small)
    [record] = Store(tmp_path).records()
    assert (record.datasets["small"].answered, record.datasets["small"].score) == (4, None)
