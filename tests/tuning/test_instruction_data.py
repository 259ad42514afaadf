"""Instruction data in every form it comes in, and every way in which it can be bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.helpers.toy import TOKENIZER
from uniprune.errors import UserError
from uniprune.synthetic.letters import SHARES, TASKS, held_out_set, training_set
from uniprune.tuning.instruction_data import Problems, Sample, encode_rows, read_rows
from uniprune.tuning.tuning_data import load_samples

GOOD = {"instruction": "please repeat the letters :", "input": "a b", "output": "the result is a b ."}


def load(rows: list[Any], cutoff: int = 64) -> tuple[list[Sample], list[str]]:
    problems = Problems()
    return encode_rows(rows, TOKENIZER, cutoff, problems), problems.lines()


def answers(sample: Sample) -> str:
    return str(TOKENIZER.decode(sample.ids[sample.answer]))


def test_alpaca_becomes_a_chat_whose_answer_is_trained() -> None:
    (sample,), problems = load([GOOD])
    assert not problems
    expected = "<bos> <user> please repeat the letters : a b <assistant> the result is a b . <eos>"
    assert TOKENIZER.decode(sample.ids) == expected
    assert answers(sample) == "the result is a b . <eos>"


@pytest.mark.parametrize("keys", [("conversations", "from", "value", "human", "gpt"),
                                  ("messages", "role", "content", "user", "assistant")])  # fmt: skip
def test_every_answer_of_a_conversation_is_trained(keys: tuple[str, ...]) -> None:
    column, who, what, user, assistant = keys
    turns = [(user, "please flip a b"), (assistant, "b a"), (user, "next"), (assistant, "c b")]
    (sample,), problems = load([{column: [{who: role, what: text} for role, text in turns]}])
    assert not problems
    assert answers(sample) == "b a <eos> c b <eos>"


def test_a_tokenizer_without_chat_template_gets_alpacas() -> None:
    from uniprune.models.tiny.language import build_tokenizer

    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    (sample,) = encode_rows([GOOD], tokenizer, 64, Problems())
    assert int(sample.ids[0]) == tokenizer.bos_token_id
    assert (sample.ids == tokenizer.eos_token_id).sum() == 1
    assert str(tokenizer.decode(sample.ids[sample.answer])).startswith("the result is a b")


def test_bad_rows_are_named_and_counted_and_the_rest_is_used() -> None:
    long = {"instruction": "please repeat " + "a " * 80, "output": "a"}
    cut = {"instruction": "please repeat", "output": "a " * 80}
    rows = [GOOD, {**GOOD, "output": "  "}, {"text": "x"}, long, cut, ["list"], GOOD, {"text": "y"},
            {"conversations": [{"from": "tool", "value": "x"}]}]  # fmt: skip
    made, problems = load(rows)
    assert [s.index for s in made] == [0, 4, 6]
    assert len(made[1].ids) == 64
    text = "\n".join(problems)
    assert "1 rows: empty answer (row 1)" in text
    assert "2 rows: missing columns: expected instruction and output, or conversations, or messages (row 2, 7)" in text
    assert "1 rows: prompt longer than the cut-off: no answer token is left (row 3)" in text
    assert "1 rows: answer cut at 64 tokens (kept) (row 4)" in text
    assert "1 rows: not a record (row 5)" in text
    assert "unknown turn" in text


def test_nothing_usable_is_refused() -> None:
    with pytest.raises(UserError, match="no usable row: 1 rows: empty answer"):
        load([{**GOOD, "output": ""}])
    with pytest.raises(UserError, match="it has no rows"):
        load([])


def test_files_and_folders(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "output": "b a"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "b.jsonl").write_text("\n".join([json.dumps(rows[0]), "", "{broken", json.dumps(rows[1])]))
    problems = Problems()
    assert read_rows(tmp_path / "a.json", problems) == rows
    assert not problems.rows
    assert read_rows(tmp_path / "b.jsonl", problems) == [rows[0], None, rows[1]]
    assert problems.rows == {"not JSON": [1]}
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    assert read_rows(tmp_path / "saved", problems) == rows
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(tmp_path / "splits")
    assert read_rows(tmp_path / "splits", problems) == rows
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "train.json").write_text(json.dumps(rows))
    assert read_rows(folder, problems) == rows


def test_line_ends_inside_strings_are_text(tmp_path: Path) -> None:
    row = {**GOOD, "output": "a\u2028b"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_rows(tmp_path / "a.jsonl", Problems()) == [row]


def test_several_files_are_numbered_through_and_problems_name_theirs(tmp_path: Path) -> None:
    names = []
    for name, rows in (("a.json", [GOOD, GOOD]), ("b.json", [{**GOOD, "output": ""}, GOOD])):
        (tmp_path / name).write_text(json.dumps(rows))
        names.append(str(tmp_path / name))
    made, problems = load_samples(names, list, TOKENIZER, 64, Console(quiet=True))
    assert [sample.index for sample in made] == [0, 1, 3]
    assert problems == [f"{names[1]}: 1 rows: empty answer (row 0)"]


def test_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_rows(tmp_path / "none.json", Problems())
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_rows(tmp_path / "x.json", Problems())
    (tmp_path / "y.json").write_text("{}")
    with pytest.raises(UserError, match="expected a list"):
        read_rows(tmp_path / "y.json", Problems())
    pytest.importorskip("datasets")
    with pytest.raises(UserError, match="cannot be read by datasets"):
        read_rows(tmp_path, Problems())


def test_removing_tokens_keeps_the_rest_in_order() -> None:
    (sample,), _ = load([GOOD])
    kept = [0, 3, 6]
    less = sample.shortened(kept)
    assert TOKENIZER.decode(less.ids) == "<bos> <user> please repeat the letters : a b <assistant> the a <eos>"
    assert answers(less) == "the a <eos>"
    masked = sample.masked(kept)
    assert masked.ids.equal(sample.ids)
    assert answers(masked) == "the a <eos>"


def test_the_generated_set_is_what_it_says() -> None:
    train, test = training_set(), held_out_set()
    assert {k: sum(r["kind"] == k for r in train) / len(train) for k in SHARES} == SHARES

    def right(row: dict[str, str]) -> bool:
        words = row["instruction"].split()
        return row["output"] == f"the result is {' '.join(TASKS[words[1]](''.join(words[5:])))} ."

    assert all(right(row) == (row["kind"] != "mislabelled") for row in train)
    assert all(right(row) for row in test)
    assert not {r["instruction"] for r in test if len(r["instruction"].split()) > 8} & {r["instruction"] for r in train}
    assert training_set() == train
