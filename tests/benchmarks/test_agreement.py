"""Agreement of the rule judge with the benchmarks' own verdicts, computed again where the answers are at hand."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.helpers.kit_tables import EXAMPLES, png, write
from tests.helpers.paths import ROOT, TESTS
from uniprune.benchmarks._kit.agreement import MEASURED, TESTMINI, agreement_note
from uniprune.benchmarks._kit.dataset import KitDataset
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.cli.main import main
from uniprune.evaluation.dataset import DataOptions
from uniprune.evaluation.score_checks import check_score

DATA = gzip.decompress((TESTS / "helpers/data/mathvision/testmini.jsonl.gz").read_bytes()).decode()
ROWS = [json.loads(line) for line in DATA.splitlines()]
UNLIKE = {
    "LLaVA-1.5-7B": {"58": "None", "78": "Left", "761": "(D) H", "873": "(D) 100 cm", "1394": "(D) $3: 2$"},
    "Qwen-VL-Max": {"45": "Yes", "91": r"12 $\mathrm{m}$", "183": "120°", "290": "72°", "319": "1.8 M", "1008": "15°"}
    | {
        "1064": "55°",
        "1167": "11°",
        "1168": "20 Cm^2",
        "1343": "26",
        "1512": "15°",
        "2634": "20%",
        "224": "8 + 2 sqrt(2)",
    },
}
"""All are wrong for the benchmark's script and right by rule: the letters "e" of words, and values of options."""


def scored(name, rows, answers, folder):
    tsv = write(folder / f"{name}.tsv", rows)
    return KitDataset(name, TASKS[name], tsv, DataOptions(folder, judge="rule")).score(answers, folder)


@pytest.mark.parametrize("model", TESTMINI.same)
def test_the_figures_shown_are_those_of_the_answers(model, tmp_path):
    image = png(1)
    rows = [
        {"index": row["id"], "image": image, "question": "Q", "answer": row["answer"], "category": row["subject"]}
        | {"choices": str(row["options"])}
        for row in ROWS
    ]
    answers = {row["id"]: row["predictions"][model][0] for row in ROWS}
    score = scored("mathvision-mini", rows, answers, tmp_path)
    unlike = {row["id"] for row in ROWS if score.per_item[row["id"]] != row["predictions"][model][1]}
    assert {index: answers[index] for index in unlike} == UNLIKE[model]
    assert all(score.per_item[index] == 1.0 for index in unlike)
    assert (len(ROWS), len(ROWS) - len(unlike)) == (TESTMINI.answers, TESTMINI.same[model])


@pytest.mark.parametrize("name", ["mathvista", "mathvision", "mathvision-mini", "mia-bench"])
def test_a_score_by_rule_carries_its_note(name, tmp_path):
    example = EXAMPLES[name]
    score = scored(name, example.rows, example.answers, tmp_path)
    check_score(score, name, example.answers, {})
    assert score.judge_note == agreement_note(name)
    assert ("not measured" in score.judge_note) == (name not in MEASURED)


@pytest.mark.end_to_end
def test_the_note_is_printed_below_the_score_and_the_leaderboard(checkpoint, tmp_path, capsys):
    command = ["--model", str(checkpoint("llava")), "--method", "none", "--data", "mini-mathvista", "--limit", "4"]
    command += ["--max-new-tokens", "2", "--data-dir", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    assert main(command) == 0
    note = agreement_note("mini-mathvista")
    shown = capsys.readouterr()
    assert f"    {note}\n" in shown.err
    assert f"mini-mathvista: {note}." in " ".join(shown.out.split())
    [record] = (tmp_path / "out").glob("*/mini-mathvista.record.json")
    assert json.loads(record.read_text())["score"]["judge_note"] == note


def test_exact_scores_have_no_note(tmp_path):
    assert scored("pope", EXAMPLES["pope"].rows, EXAMPLES["pope"].answers, tmp_path).judge_note == ""


def test_the_note_gives_share_and_source():
    assert agreement_note("mathvision") == (
        "rule judge: agrees with the benchmark's own verdicts in 97.0 % of 608 answers of LLaVA-1.5-7B and Qwen-VL-Max "
        "(Math-Vision testmini)"
    )
    assert "97.0 % (590 of 608)" in (ROOT / "docs/benchmarks.md").read_text()
    assert agreement_note("mathvista") == "rule judge: agreement with the benchmark's own verdicts not measured"
    assert set(MEASURED) <= {name for name, task in TASKS.items() if task.judge}
