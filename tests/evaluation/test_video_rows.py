"""Rows with videos: encoded for the model as it is, damaged ones left out, models without video refused by name."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from tests.helpers.videos import frame
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request, Score
from uniprune.evaluation.frame_sampling import FrameSampling
from uniprune.evaluation.generation import Generator
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.processing import RequestEncoder
from uniprune.evaluation.run import Run
from uniprune.evaluation.video_files import video_of
from uniprune.evaluation.video_support import check_videos
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, Placement, load
from uniprune.modeling.messages import Part
from uniprune.registry import BENCHMARKS, register_benchmark
from uniprune.results.leaderboard import leaderboard
from uniprune.results.predictions import prediction_lines
from uniprune.results.records import RunRecord
from uniprune.results.remarks import REPEATED
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress

pytestmark = pytest.mark.end_to_end

TOKENS = 12 * 12
"""Visual tokens of a frame."""


@pytest.fixture(scope="module")
def qwen(checkpoint: Callable[[str], Path]) -> LoadedModel:
    entry = ModelEntry(name="tiny", source=str(checkpoint("qwen2.5-vl")))
    return load(entry, Placement("float32", "sdpa", "cpu"))


def clip(frames: int, fps: float = 4.0, sizes: Sequence[int] = (96,)) -> Part:
    images = [frame(number, (96, sizes[number % len(sizes)])) for number in range(frames)]
    return Part(video=video_of(images, fps, "clip"))


def request(index: str, *parts: Part, videos: int = 1) -> Request:
    return Request(index, partial(list, parts), "How many?", 4, wording=(0, "How many?"), videos=videos)


def ask(index: str, video: Part) -> Request:
    return request(index, video, Part("How many?"))


class Clips:
    """A benchmark of given rows; every answer counts."""

    name, ability, fingerprint = "clips", "video", "0"

    def __init__(self, rows: Sequence[Request]) -> None:
        self.rows, self.faulty = list(rows), dict[str, str]()

    def __len__(self) -> int:
        return len(self.rows)

    def requests(self, limit: int | None = None) -> list[Request]:
        return self.rows[:limit]

    def score(self, predictions: dict[str, str], workdir: Path, limit: int | None = None, **_: object) -> Score:
        return Score(100.0, "accuracy", len(predictions), per_item=dict.fromkeys(predictions, 1.0))


if "clips" not in BENCHMARKS.names():

    @register_benchmark("clips", suite="", ability="video", metric="accuracy", judge=False)
    def clips(options: object) -> Clips:
        """Rows of a test."""
        return Clips([])


def evaluate(loaded: LoadedModel, folder: Path, rows: Sequence[Request], **options: object) -> tuple[RunRecord, str]:
    text = io.StringIO()
    settings = RunOptions(**options)  # type: ignore[arg-type]
    with RunProgress(99, Console(file=text, width=300)) as progress:
        run = Run(loaded, MethodSpec("random-pre", 0.25).normalised(), settings)
        return run.evaluate([Clips(rows)], Store(folder), progress), text.getvalue()


@pytest.mark.parametrize(
    ("sampling", "frames", "seconds"), [(FrameSampling(4), 4, 2.0), (FrameSampling(None, 1), 8, 1.0)]
)
def test_the_model_gets_frames_and_the_time_between_them(
    qwen: LoadedModel, sampling: FrameSampling, frames: int, seconds: float
) -> None:
    row = RequestEncoder(qwen.processor, sampling=sampling).encode(ask("0", clip(32)))
    assert (row.error, row.frames, row.remarks) == (None, frames, ())
    assert int((row.inputs["input_ids"] == qwen.model.config.video_token_id).sum()) == frames * TOKENS
    assert row.inputs["video_grid_thw"].tolist() == [[frames, 24, 24]]
    assert row.inputs["second_per_grid_ts"].tolist() == [seconds]


def test_without_pruning_the_answer_is_the_models_own(qwen: LoadedModel) -> None:
    row = RequestEncoder(qwen.processor, sampling=FrameSampling(2)).encode(ask("0", clip(8)))
    [ours] = Generator(qwen).generate([row])
    inputs = {name: torch.from_numpy(value) for name, value in row.inputs.items()}
    own = qwen.model.generate(**inputs, max_new_tokens=row.length, do_sample=False)[0, row.tokens :]
    assert ours.text == qwen.processor.tokenizer.decode(own, skip_special_tokens=True).strip()


def test_seconds_are_not_rounded_to_the_precision_of_the_weights(qwen: LoadedModel) -> None:
    half = replace(qwen, model=SimpleNamespace(dtype=torch.bfloat16, device="cpu"))
    generator = Generator.__new__(Generator)
    generator.model = half.model
    row = RequestEncoder(qwen.processor, sampling=FrameSampling(3)).encode(ask("0", clip(16, fps=15.0)))
    moved = generator.tensors(row.inputs)
    assert moved["pixel_values_videos"].dtype == torch.bfloat16
    assert moved["second_per_grid_ts"].item() == row.inputs["second_per_grid_ts"].item() != 0.35546875


def test_every_bad_row_is_one_line_and_left_out(qwen: LoadedModel, tmp_path: Path) -> None:
    bad = {
        "none": (ask("none", clip(0)), "video clip has 0 frames; expected at least 2"),
        "one": (ask("one", clip(1)), "video clip has 1 frame; expected at least 2 (one frame is an image)"),
        "sizes": (
            ask("sizes", clip(6, sizes=(96, 96, 96, 96, 64))),
            "frames of video clip have different sizes: 96x96, 96x64",
        ),
    }
    rows = [ask("good", clip(6)), *(row for row, _ in bad.values())]
    record, printed = evaluate(qwen, tmp_path, rows, sampling=FrameSampling(2))
    entry = record.datasets["clips"]
    assert set(entry.faulty) == set(bad)
    for index, (_, message) in bad.items():
        assert message in entry.faulty[index]
        assert "\n" not in entry.faulty[index]
        assert f"row {index} is left out: " in printed
    assert (entry.answered, entry.refused, entry.left_out) == (1, 3, 3)
    assert entry.score is not None
    assert entry.score.rows == 1


def test_counts_are_those_of_the_frames_and_shown(qwen: LoadedModel, tmp_path: Path) -> None:
    rows = [ask("few", clip(3)), ask("many", clip(40)), request("text", Part("How many?"), videos=0)]
    record, _ = evaluate(qwen, tmp_path, rows[:2], sampling=FrameSampling(4))
    entry = record.datasets["clips"]
    assert entry.ledger is not None
    assert (entry.ledger.initial, entry.ledger.frames) == (4 * TOKENS, 4)
    assert entry.ledger.layers == [TOKENS] * len(entry.ledger.layers)
    assert not entry.ledger.flagged
    assert entry.remarks[REPEATED] == 1
    assert (record.setup.frames, record.setup.fps) == (4, None)
    assert "frames=4" in str(leaderboard([record]).rows[0]["settings"])
    other, _ = evaluate(qwen, tmp_path, rows[1:2], sampling=FrameSampling(None, 0.5))
    assert other.identity != record.identity
    assert other.datasets["clips"].ledger is not None
    assert other.datasets["clips"].ledger.initial == 5 * TOKENS
    assert "fps=0.5" in str(leaderboard([other]).rows[0]["settings"])


def test_rows_of_images_and_of_videos_are_batched_apart(qwen: LoadedModel, tmp_path: Path) -> None:
    image = Part(image=frame(3, (96, 96)))
    rows = [
        *(request(f"image {n}", image, Part("How many?"), videos=0) for n in range(3)),
        *(ask(f"video {n}", clip(4 + n)) for n in range(3)),
    ]
    rows = [rows[place] for place in (3, 0, 4, 1, 5, 2)]
    together, _ = evaluate(qwen, tmp_path / "8", rows, sampling=FrameSampling(2))
    alone, _ = evaluate(qwen, tmp_path / "1", rows, sampling=FrameSampling(2), batch_size=1)
    texts = [
        {
            one.index: one.prediction
            for one in prediction_lines(Store(tmp_path / size).predictions(run.identity, "clips")).read()
        }
        for size, run in (("8", together), ("1", alone))
    ]
    assert texts[0] == texts[1]
    assert together.datasets["clips"].batching == {"8": 6}


def test_a_model_without_video_is_refused_before_the_run(
    qwen: LoadedModel, loaded: LoadedModel, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = [ask("0", clip(4))]
    lacks = r"which tiny cannot be shown: its processor, LlavaProcessor, is one without video; .* qwen2_5_vl, qwen2_vl"
    with pytest.raises(UserError, match=lacks):
        evaluate(loaded, tmp_path, rows)
    assert not list(tmp_path.iterdir())
    internvl = load(ModelEntry(name="tiny", source=str(checkpoint("internvl"))), Placement("float32", "sdpa", "cpu"))
    with pytest.raises(UserError, match="videos of family internvl are not supported"):
        check_videos(internvl, "clips", rows, shares_features=False)
    silent = load(qwen.entry, Placement("float32", "sdpa", "cpu"))
    silent.processor.chat_template = silent.processor.chat_template.replace("<video>", "")
    with pytest.raises(UserError, match="its chat template writes no placeholder for a video"):
        check_videos(silent, "clips", rows, shares_features=False)
    with pytest.raises(UserError, match="--share-vision shares features of images, and clips asks about videos"):
        check_videos(qwen, "clips", rows, shares_features=True)
    check_videos(loaded, "clips", [replace(rows[0], videos=0)], shares_features=True)
