"""Loading, prompting and scoring of every dataset format, by VLMEvalKit's own classes."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.kit_agreement import right_answer, row_name
from tests.helpers.kit_tables import EXAMPLES, write
from uniprune.benchmarks._kit import images
from uniprune.benchmarks._kit.boot import boot, session
from uniprune.benchmarks._kit.dataset import KitDataset, bare_question
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions, Score
from uniprune.results.statistics import resample

pytestmark = pytest.mark.end_to_end


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Any attempt to reach the network is a failure."""

    def refuse(self, address):
        raise AssertionError(f"a connection to {address} was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def opened(name: str, folder: Path, rows=None, judge: str | None = "rule") -> KitDataset:
    tsv = write(folder / f"{name}.tsv", rows or EXAMPLES[name].rows)
    return KitDataset(name, TASKS[name], tsv, DataOptions(folder, judge=judge))


@pytest.mark.parametrize("name", EXAMPLES)
def test_scores_worked_out_by_hand(name, tmp_path):
    example, dataset = EXAMPLES[name], opened(name, tmp_path)
    score = dataset.score(example.answers, tmp_path / "scores")
    assert score.value == pytest.approx(example.value)
    assert score.unparsed == example.unparsed
    assert score.per_item == pytest.approx(example.per_item)
    assert (score.rows, score.metric) == (len(example.answers), TASKS[name].metric)
    assert score.judge == ("rule" if TASKS[name].judge else "exact")
    assert score.details["faulty"] == {}
    assert dataset.ability == TASKS[name].ability and len(dataset) == len(example.answers)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_right_answer_is_worth_a_hundred(name, tmp_path):
    rows = [row for row in EXAMPLES[name].rows if row.get("num_of_component") != 3]  # its parts exclude each other
    rows = [row for row in rows if row.get("split") != "dev" or TASKS[name].split is None]
    dataset = opened(name, tmp_path, rows)
    score = dataset.score({row_name(name, row): right_answer(name, row) for row in rows}, tmp_path)
    assert (score.value, score.unparsed, set(score.per_item.values())) == (100, 0, {1.0})


@pytest.mark.parametrize("name", EXAMPLES)
def test_prompts_are_those_of_the_official_class(name, tmp_path, monkeypatch):
    """The stock class reads the same TSV from disk, writes images to disk, and must ask the same."""
    dataset, task = opened(name, tmp_path), TASKS[name]
    stock = boot().dataset_class(task.module, task.cls)
    with session() as folder:
        write(folder / f"{task.kit_name}.tsv", EXAMPLES[name].rows)
        monkeypatch.delitem(stock.DATASET_MD5, task.kit_name)  # it accepts no other file under the official name
        reference = stock(dataset=task.kit_name)
        place = {str(index): i for i, index in enumerate(reference.data["index"])}
        for request in dataset.requests():
            wanted = reference.build_prompt(place[request.index])
            parts = request.load()
            assert [part.text for part in parts] == [w["value"] if w["type"] == "text" else None for w in wanted]
            assert [None if isinstance(piece, int) else piece for piece in request.wording] == [p.text for p in parts]
            for part, item in zip(parts, wanted, strict=True):
                if item["type"] == "image":
                    with images.Image.open(item["value"]) as picture:
                        assert part.image.tobytes() == picture.convert("RGB").tobytes()


def test_multiple_choice_prompt_word_for_word(tmp_path):
    [first, second] = opened("scienceqa", tmp_path).requests()
    tail = "Please select the correct answer from the options above. \n"
    assert first.load()[1].text == f"Hint: Count.\nQuestion: Which?\nOptions:\nA. one\nB. two\nC. three\n{tail}"
    assert second.load()[1].text == f"Question: Which?\nOptions:\nA. red\nB. blue\n{tail}"
    assert (first.question, first.max_new_tokens) == ("Which?", 128)


def test_the_bare_question_has_no_hints():
    vista = "Hint: Please answer the question and provide the letter.\nQuestion: What is it?\nChoices:\n(A) 3\n(B) 4"
    assert bare_question(vista) == "What is it?"
    assert bare_question("Is it red? Please answer yes or no.") == "Is it red?"
    assert bare_question("<image1> How many?") == "How many?"
    assert bare_question("Read the word.") == "Read the word."


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [("Yes", "Yes"), ("no!", "No"), ("The answer is yes, not no", "Unknown"), ("Nope", "Unknown"), ("", "Unknown")],
)
def test_yes_no_rule(answer, wanted):
    from vlmeval.dataset.utils.yorn import YOrN_Extraction

    assert YOrN_Extraction(answer) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [("A", "A"), ("(B)", "B"), ("The answer is B.", "B"), ("a square", "B"), ("A circle", "A"), ("A or B", False)],
)
def test_option_rule(answer, wanted):
    rule = boot().multiple_choice.can_infer
    assert rule(answer, {"A": "circle", "B": "square"}) == wanted


def test_a_rating_uses_the_predictions_of_this_call_only(tmp_path):
    """VLMEvalKit's own cache returns the first result for ever."""
    for name in ("seedbench2-plus", "mathvista", "mia-bench", "pope"):
        example, dataset = EXAMPLES[name], opened(name, tmp_path)
        first = dataset.score(example.answers, tmp_path / name)
        nothing = dataset.score(dict.fromkeys(example.answers, ""), tmp_path / name)
        again = dataset.score(example.answers, tmp_path / name)
        assert nothing.value == 0 and nothing.rows == len(example.answers)
        assert first == again and first.value > 0


def test_changed_pictures_are_shown(tmp_path):
    """VLMEvalKit's own cache of images by index shows the old ones."""
    rows = EXAMPLES["pope"].rows
    [before, *_] = opened("pope", tmp_path).requests()
    changed = [row | {"image": rows[-1]["image"]} for row in rows]
    dataset = opened("pope", tmp_path, changed)
    [after, *_] = dataset.requests()
    assert before.load()[0].image.getpixel((0, 0)) == (0, 40, 200)
    assert after.load()[0].image.getpixel((0, 0)) == (3, 40, 200)
    assert dataset.fingerprint != opened("pope", tmp_path).fingerprint


def test_predictions_of_another_dataset_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not have: 77"):
        opened("pope", tmp_path).score({"77": "Yes"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "limit", "indices"),
    [
        ("pope", 2, ["0", "1"]),
        ("mme", 3, ["0", "1"]),
        ("mme", 1, ["0", "1"]),
        ("mmbench-en", 7, ["0", "1000000", "2000000", "3000000"]),
        ("pope", 99, ["0", "1", "2", "3"]),
    ],
)
def test_a_limit_takes_whole_questions(name, limit, indices, tmp_path):
    dataset = opened(name, tmp_path)
    assert [r.index for r in dataset.requests(limit)] == indices
    score: Score = dataset.score(EXAMPLES[name].answers, tmp_path, limit)
    assert score.rows == len(indices)


def test_a_limit_of_interleaved_rotations_completes_the_first(tmp_path):
    rows = sorted(EXAMPLES["mmbench-en"].rows, key=lambda row: row["index"])  # 0, 1, 1000000, 1000001, …
    dataset = opened("mmbench-en", tmp_path, rows)
    assert [r.index for r in dataset.requests(2)] == ["0", "1000000", "2000000", "3000000"]
    with pytest.raises(UserError, match="at least 1"):
        dataset.requests(0)


def test_longer_answers_can_be_asked_for(tmp_path):
    tsv = write(tmp_path / "x.tsv", EXAMPLES["pope"].rows)
    task = replace(TASKS["pope"], max_new_tokens=16)
    assert KitDataset("mini-pope", task, tsv, DataOptions(tmp_path)).requests()[0].max_new_tokens == 16


def test_the_details_are_plain_json(tmp_path):
    import json

    for name in ("mme", "mia-bench", "pope", "mathvision"):
        score = opened(name, tmp_path).score(EXAMPLES[name].answers, tmp_path)
        assert json.loads(json.dumps(score.details)) == score.details
    assert opened("pope", tmp_path).score(EXAMPLES["pope"].answers, tmp_path).details["table"][0]["Overall"] == 75


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_headline_follows_from_what_its_items_contribute(name, tmp_path):
    """So that its interval is of the headline itself, and resampled scores are what the kit would have given."""
    example = EXAMPLES[name]
    dataset = opened(name, tmp_path)
    for answers in (example.answers, *(dict.fromkeys(example.answers, text) for text in ("", "Yes", "B"))):
        score = dataset.score(answers, tmp_path / "scores")
        [estimate] = resample([score], name, resamples=10)
        assert estimate.value == pytest.approx(score.value)


@pytest.mark.parametrize(
    ("name", "clusters"),
    [
        # A question's rotations share a picture, though they are one item.
        ("mmbench-en", {str(turn * 1000000 + i): str(i) for i in range(2) for turn in range(4)}),
        # Pairs of two categories on one picture, and one on another.
        ("mme", {"0": "0", "1": "0", "2": "2", "3": "2", "4": "0", "5": "0"}),
        ("pope", {}),
        ("hallusionbench", dict.fromkeys(EXAMPLES["hallusionbench"].answers, "VD_figure_1_0_0_0")),
    ],
)
def test_rows_that_share_a_picture_are_one_cluster(name, clusters, tmp_path):
    score = opened(name, tmp_path).score(EXAMPLES[name].answers, tmp_path / "scores")
    assert score.clusters == clusters


def test_pictures_and_references_to_them_link_rows_directly_and_through_others(tmp_path):
    rows = [dict(row) for row in EXAMPLES["pope"].rows]
    rows[2]["image"] = str(rows[0]["index"])
    rows[3]["image"] = rows[0]["image"]
    score = opened("pope", tmp_path, rows).score(EXAMPLES["pope"].answers, tmp_path / "scores")
    assert score.clusters == {"0": "0", "2": "0", "3": "0"}
