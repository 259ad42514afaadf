"""Video datasets of VLMEvalKit: its prompts word for word, its frames, its scores, and rows that cannot be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.video_tables import EXAMPLES, opened, table
from uniprune.benchmarks._kit.boot import session
from uniprune.benchmarks._kit.table import md5
from uniprune.benchmarks._kit.video_dataset import VideoDataset
from uniprune.benchmarks._kit.video_kit import boot_videos
from uniprune.benchmarks._kit.video_official import VideoFiles
from uniprune.benchmarks._kit.video_tasks import VIDEO_TASKS
from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataOptions
from uniprune.evaluation.frame_sampling import FrameSampling, sampled
from uniprune.modeling.messages import Part
from uniprune.registry import BENCHMARKS

pytestmark = pytest.mark.end_to_end
pytest.importorskip("decord")

names = pytest.mark.parametrize("name", EXAMPLES)
MD5 = {
    "video-mme": "85bdd91f9b29a99354c23b97ab7c113c",
    "mvbench": "5c8c6f8b7972c2de65a629590f7c42f5",
    "mlvu": "bb5c37e7cf8d43fc9a25c23d2b4633f5",
    "longvideobench": "82905eae3a5ae7383c5a8ee9655e1ab9",
}


def test_every_video_dataset_has_an_example() -> None:
    assert set(EXAMPLES) == set(VIDEO_TASKS) == set(MD5)


@names
def test_prompts_are_the_kits_with_the_video_at_its_place(name: str, tmp_path: Path) -> None:
    dataset, example = opened(name, tmp_path), EXAMPLES[name]
    request = dataset.requests(1)[0]
    assert request.wording == example.wording
    assert (request.videos, request.raw) == (1, None)
    parts = request.load()
    assert [0 if part.kind == "video" else part.text for part in parts] == list(example.wording)
    [video] = [part.video for part in parts if part.video is not None]
    assert (video.frames, video.fps) == (20, 10.0)
    assert len(dataset.requests()) == len(example.rows)
    assert not list(tmp_path.rglob("*.lock")), "reading a dataset writes nothing"


@names
@pytest.mark.parametrize("official", [False, True])
def test_scores_are_the_kits(name: str, official: bool, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    expected = {"expected_md5": md5(table(name, tmp_path))} if official else {}
    dataset = opened(name, tmp_path, **expected)
    score = dataset.score({index: text for index, (text, _) in example.answers.items()}, tmp_path / "judge")
    assert dict(score.per_item) == {index: float(credit) for index, (_, credit) in example.answers.items()}
    assert score.value == pytest.approx(100 * np.mean([credit for _, credit in example.answers.values()]))
    assert (score.rows, score.unparsed, score.judge) == (len(example.answers), example.unparsed, "exact")
    assert "no_table" not in score.details
    assert score.scorer == boot_videos().version


@names
def test_the_kits_own_total_is_the_headline(name: str, tmp_path: Path) -> None:
    """Without the answers that MVBench's rule takes for every option."""
    kept = {index: text for index, (text, _) in EXAMPLES[name].answers.items() if text.strip("(")}
    rows = [row for row in EXAMPLES[name].rows if str(row["index"]) in kept]
    score = opened(name, tmp_path, rows).score(kept, tmp_path / "judge")
    [own] = score.details["table"]
    total = {
        "video-mme": lambda: float(own["overall"]["overall"]) * 100,
        "mvbench": lambda: float(own["overall"][2].rstrip("%")),
        "mlvu": lambda: 100 * np.divide(*np.sum(list(own.values()), axis=0)),
        "longvideobench": lambda: float(own["overall"]["overall"]) * 100,
    }[name]()
    assert score.value == pytest.approx(total, abs=0.06)


@names
def test_rows_left_out_are_in_no_part_of_the_score(name: str, tmp_path: Path) -> None:
    """The kit writes the score of the row called i into line i, so that rows must be numbered anew."""
    example = EXAMPLES[name]
    first = str(example.rows[0]["index"])
    answers = {index: text for index, (text, _) in example.answers.items() if index != first}
    score = opened(name, tmp_path).score(answers, tmp_path / "judge", left_out={first: "damaged"})
    assert dict(score.per_item) == {index: float(example.answers[index][1]) for index in answers}
    assert score.details["faulty"] == {first: "damaged"}


@pytest.mark.parametrize(("frames", "fps"), [(4, None), (30, None), (None, 1.0), (None, 2.5)])
def test_frames_are_those_of_the_kit(frames: int | None, fps: float | None, tmp_path: Path) -> None:
    """By its own code, which stores them as JPEG; the numbers of frames are compared."""
    dataset = opened("video-mme", tmp_path)
    [video] = [part.video for part in dataset.requests(1)[0].load() if part.video is not None]
    kit = boot_videos()
    with session():
        own = object.__new__(kit.dataset_class("videomme", "VideoMME"))
        own.data_root, own.nframe, own.fps = str(tmp_path), frames or 0, fps or -1
        own.frame_root, own.frame_tmpl, own.frame_tmpl_fps = str(tmp_path / "kit"), "{}-{}.jpg", "{}-{}-{}.jpg"
        _, places, _ = own.save_video_frames("a")
    [part], _ = sampled([Part(video=video)], FrameSampling.of(frames, fps))
    assert part.clip is not None
    assert list(part.clip.places) == places


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("video-mme", {"candidates": "['A. x.', 'B. y.']"}, "expected a list of four options"),
        ("video-mme", {"candidates": "[A. x."}, "candidates"),
        ("video-mme", {"answer": "E"}, "answer 'E' is not one that Video-MME scores"),
        ("video-mme", {"duration": "endless"}, "duration 'endless' is not one"),
        ("mvbench", {"answer": "5"}, "the answer '5' is none of its candidates"),
        ("mvbench", {"candidates": "['3']"}, "expected a list of two options or more"),
        ("mlvu", {"question": ""}, "field 'question' is empty"),
        ("longvideobench", {"correct_choice": 5}, "correct_choice '5' is the number of no candidate"),
        ("longvideobench", {"duration_group": 16}, "duration_group '16' is not one"),
        ("longvideobench", {"candidates": "['p', 'q', 'r', 's', 't', 'u']"}, "expected a list of two to five options"),
    ],
)
def test_rows_that_cannot_be_scored_are_faulty(
    name: str, change: dict[str, object], reason: str, tmp_path: Path
) -> None:
    rows = [dict(row) for row in EXAMPLES[name].rows]
    rows[0] |= change
    dataset = opened(name, tmp_path, rows)
    [(index, found)] = dataset.faulty.items()
    assert index == str(rows[0]["index"])
    assert reason in found


def test_a_row_whose_video_is_missing_is_faulty_and_named(tmp_path: Path) -> None:
    path = table("mlvu", tmp_path)
    (tmp_path / "MLVU/video/4_count/a.mp4").unlink()
    dataset = VideoDataset("mlvu", VIDEO_TASKS["mlvu"], path, DataOptions(tmp_path))
    assert dataset.faulty == {"0": "its video does not exist"}
    assert [request.index for request in dataset.requests()] == ["1", "2"]


def test_another_video_is_another_fingerprint(tmp_path: Path) -> None:
    before = opened("mvbench", tmp_path).fingerprint
    assert opened("mvbench", tmp_path).fingerprint == before
    with (tmp_path / "video/clevrer/b.mp4").open("ab") as file:
        file.write(b"0")
    assert opened("mvbench", tmp_path).fingerprint != before


def test_questions_about_one_video_are_a_cluster(tmp_path: Path) -> None:
    example = EXAMPLES["video-mme"]
    score = opened("video-mme", tmp_path).score({i: text for i, (text, _) in example.answers.items()}, tmp_path / "j")
    assert dict(score.clusters) == {"0": "0", "1": "0", "2": "2", "3": "2"}


@names
def test_tables_are_compared_with_the_kits_md5_and_never_downloaded(name: str, tmp_path: Path) -> None:
    source = VideoFiles(name, VIDEO_TASKS[name])
    assert source.published() == MD5[name]
    entry = BENCHMARKS.entry(name)
    assert (entry.metadata["suite"], entry.metadata["judge"]) == ("video", False)
    with pytest.raises(
        UserError, match=f"{name}: .* does not exist; UniPrune does not download videos: let VLMEvalKit"
    ):
        entry.target(DataOptions(tmp_path))
    with pytest.raises(UserError, match=f"{name}: .* is absent; UniPrune does not download"):
        source.fetch(tmp_path)
    table(name, source.path(tmp_path).parent)
    assert source.inspect(tmp_path).state == "altered"
    with pytest.raises(UserError, match="is not the official file: md5"):
        entry.target(DataOptions(tmp_path))
