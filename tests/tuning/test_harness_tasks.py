"""Tuned models on tasks of lm-evaluation-harness, with tasks of our own in its format and no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.models.tiny.language import FOLDER
from uniprune.synthetic.letters import LETTERS, TASKS, training_set
from uniprune.tuning.harness import task_scores
from uniprune.tuning.settings import Settings
from uniprune.tuning.tuning_data import load_pretrained

pytestmark = pytest.mark.end_to_end

pytest.importorskip("lm_eval")

WORDS = ("abc", "kpm", "dhf", "oog", "eli", "npb")


def task_folder(root: Path) -> Path:
    """A multiple-choice and a generation task: repeat the letters, which the base model can."""
    folder = root / "tasks"
    folder.mkdir()
    rows = []
    for word in WORDS:
        question = f"<bos> <user> please repeat the letters : {' '.join(word)} <assistant> the result is"
        wrong = TASKS["flip"](word[:2]) + LETTERS[-1]
        rows.append(
            {"question": question, "right": " ".join(word), "choices": [" ".join(wrong), " ".join(word)], "gold": 1}
        )
    (folder / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    common = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.json")}},
              "test_split": "test", "doc_to_text": "{{question}}"}  # fmt: skip
    choose = {"task": "letters_choice", "output_type": "multiple_choice", "doc_to_choice": "{{choices}}",
              "doc_to_target": "{{gold}}", "metric_list": [{"metric": "acc"}]}  # fmt: skip
    say = {"task": "letters_say", "output_type": "generate_until", "doc_to_target": "{{right}}",
           "generation_kwargs": {"until": [" ."], "max_gen_toks": 8},
           "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]}  # fmt: skip
    for task in (choose, say):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(common | task))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_the_base_model_is_scored_and_its_scores_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from uniprune.tuning import harness

    fields = {"model": str(FOLDER), "data": [], "pairs": [], "tasks": ["letters_choice", "letters_say"],
            "task_folder": str(task_folder(tmp_path))}  # fmt: skip
    settings = Settings.model_validate(fields)
    tokenizer = load_pretrained("AutoTokenizer", str(FOLDER))
    scores = task_scores(tmp_path / "base", None, settings, tokenizer)
    assert scores["letters_choice"]["acc"] == 1.0
    assert scores["letters_say"]["exact_match"] == 1.0
    monkeypatch.setattr(harness, "load_tuned", None)
    assert task_scores(tmp_path / "base", None, settings, tokenizer) == scores


@pytest.mark.slow
def test_unknown_tasks_are_named(tmp_path: Path) -> None:
    settings = Settings.model_validate({"model": str(FOLDER), "data": [], "pairs": [], "tasks": ["no_such_task"]})
    with pytest.raises(UserError, match="has no task 'no_such_task'"):
        task_scores(tmp_path, None, settings, load_pretrained("AutoTokenizer", str(FOLDER)))


@pytest.mark.slow
def test_a_tuning_file_with_tasks_ends_with_their_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps(training_set(640)[:32]))
    file = tmp_path / "file.yaml"
    fields = {"model": str(FOLDER), "data": [str(data)], "pairs": [{"samples": "q", "tokens": "none"}], "epochs": 1,
            "tasks": ["letters_choice"], "task_folder": str(task_folder(tmp_path)), "task_limit": 4}  # fmt: skip
    file.write_text(yaml.safe_dump(fields))
    main(["tune", str(file), "--output", str(tmp_path / "out")])
    table = (tmp_path / "out" / "file" / "tasks.csv").read_text().splitlines()
    assert table[0] == "pair,letters_choice (acc),average"
    assert table[1].startswith("zero-shot,100.0")
    assert table[2].startswith("q+none,")
    assert "Tasks" in capsys.readouterr().out
