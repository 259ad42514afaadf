"""The HTML report of a comparison: what it shows, and that no text from data becomes markup."""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from uniprune.evaluation.environment import environment
from uniprune.tuning.accuracy import KindScore
from uniprune.tuning.instruction_data import Sample
from uniprune.tuning.report import removed_tokens, report_page
from uniprune.tuning.run import TuningRecord
from uniprune.tuning.settings import PairChoice, Settings
from uniprune.tuning.step_log import BatchLine, ProbeLine, StepLine, StepLog
from uniprune.tuning.summary import FinishedRun, SummaryTable, count_problems, kept_table, task_table
from uniprune.tuning.tuning_data import TuningData

HOSTILE = "<script>alert(1)</script>"
WORDS = ["<bos>", "please", HOSTILE, "a & b", "done"]


class Words:
    """A tokenizer that decodes token ids to `WORDS`."""

    def decode(self, ids: list[int]) -> str:
        return " ".join(WORDS[i] for i in ids)


class FilledLog(StepLog):
    """A step log without a file."""

    def __init__(self, *lines: StepLine | ProbeLine) -> None:
        self._lines = list(lines)


def sample(index: int, kind: str) -> Sample:
    return Sample(index, torch.arange(5), torch.tensor([2, 3, 4]), kind)


def step(number: int) -> StepLine:
    batch = BatchLine(
        index=[0, 1], kept=[1], removed={1: [0]}, quadrant=[3, 2], perplexity=[1.0, 9.0], entropy=[0.1, 0.2]
    )
    return StepLine(step=number, loss=1.0, tokens=10, answers=6, run=4, trained=2, seconds={}, batches=[batch])


def finished(label: str, role: str, *lines: StepLine | ProbeLine) -> FinishedRun:
    choice = PairChoice.model_validate({"samples": "q", "tokens": "q", "role": role})
    score = KindScore(items=4, right=1, tokens=0.5)
    record = TuningRecord(
        identity="0", label=label, choice=choice, fields={}, seed=0,
        settings=Settings(model="m", data=[], pairs=[choice]),
        processes=1, environment=environment("cpu"), problems=[], before={"": score}, after={"": score}, memory=None,
    )  # fmt: skip
    return FinishedRun(record, FilledLog(*lines))


def page(*runs: FinishedRun, kind: str = "", table: SummaryTable | None = None) -> str:
    data = TuningData(Words(), [sample(0, kind), sample(1, kind)], [], [f"1 rows: {HOSTILE}"], "hash", "weights")
    return report_page("file", runs, data, {"Accuracy": table or SummaryTable(["pair"], [["q+q"]])}, ["one sentence"])


def test_text_from_data_is_escaped_everywhere() -> None:
    table = SummaryTable([f"exact {HOSTILE} %"], [[HOSTILE]])
    lines = [ProbeLine(step=0, perplexity=[2.0], entropy=[0.1]), step(0)]
    text = page(finished(f"q+q {HOSTILE}", "method", *lines), kind=f"{HOSTILE} $x$", table=table)
    assert "<script" not in text
    shown = text.count("&lt;script&gt;alert(1)&lt;/script&gt;")
    # In the table twice, in the label of the trajectories, in two titles, in the legend of the plane, in the title and
    # the tokens of the case, and in the list of problems.
    assert shown == 9
    assert "a &amp; b" in text


def test_kept_samples_are_counted_by_quadrant() -> None:
    table = kept_table([finished("q+q", "method", step(0), step(1)), finished("full+none", "whole")])
    assert table is not None
    assert table.rows == [["q+q", "2", "0.0", "100.0", "0.0", "0.0", "0.0"]]
    assert kept_table([finished("full+none", "whole")]) is None


def test_tokens_are_marked_by_what_became_of_them() -> None:
    (case,) = removed_tokens([step(6)], {1: sample(1, "hard")}, Words())
    assert case.title == "step 7, row 1, Q2, hard"
    assert case.tokens == [("prompt", "<bos>"), ("prompt", "please"), ("removed", HOSTILE), ("kept", "a & b"),
                           ("kept", "done")]  # fmt: skip
    assert '<span class="removed">&lt;script' in page(finished("q+q", "method", step(0)))


def test_cases_are_spread_over_the_training() -> None:
    cases = removed_tokens([step(number) for number in range(100)], {1: sample(1, "")}, Words(), count=3)
    assert [case.title for case in cases] == ["step 1, row 1, Q2", "step 51, row 1, Q2", "step 100, row 1, Q2"]
    assert removed_tokens([], {}, Words()) == []


def test_variants_show_their_tokens_and_baselines_nothing() -> None:
    runs = [finished("q+q", "method", step(0)), finished("q+q", "method", step(1)), finished("v", "variant", step(0)),
            finished("random+random", "baseline", step(0))]  # fmt: skip
    titles = re.findall("<h2>(.*?)</h2>", page(*runs))
    assert titles == ["Accuracy", "Error-uncertainty plane: q+q, seed 0", "Removed tokens: q+q, seed 0",
                      "Removed tokens: v, seed 0", "Rows left out or shortened"]  # fmt: skip


def test_a_page_without_runs_has_its_tables() -> None:
    text = page()
    assert "<td>q+q</td>" in text
    assert "<p>one sentence</p>" in text
    assert "<svg" not in text


def test_numbers_that_do_not_exist_are_counted_and_left_out_of_figures() -> None:
    probes = [ProbeLine(step=n, perplexity=[None, 2.0][: n + 1], entropy=[None, 1.0][: n + 1]) for n in (0, 1)]
    batch = step(0).batches[0].model_copy(update={"perplexity": [None, 9.0]})
    lines = [*probes, step(0).model_copy(update={"batches": [batch]})]
    run = replace(finished("q+q", "method", *lines), tasks={"t": {"acc": None, "acc_stderr": 0.1}})
    assert "<svg" in page(run)
    assert count_problems([run]) == [
        "3 measurements of samples had no finite perplexity or entropy: they count as the largest of their batch and "
        "are left out of the figures",
        "the harness gave no finite value for t: acc",
    ]


def test_a_task_without_a_value_has_neither_a_mean_nor_an_average() -> None:
    good, bad = ({"t": {"acc": value}, "u": {"acc": 0.5}} for value in (0.25, None))
    runs = [replace(finished("q+q", "method"), tasks=one) for one in (good, bad)]
    assert task_table(runs[:1], good).rows == [["zero-shot", "25.0", "50.0", "37.5"], ["q+q", "25.0", "50.0", "37.5"]]
    assert task_table(runs, good).rows[1] == ["q+q", "–", "50.0 ± 0.0", "–"]
