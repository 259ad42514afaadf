"""Questions about one image on one prefill (`--share-prefix`): predictions and ledger are those of rows alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.video_models import SIDE, video_model
from tests.helpers.videos import frame
from uniprune.cli.main import main
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.frame_sampling import FrameSampling
from uniprune.evaluation.plan import RunSettings
from uniprune.evaluation.processing import EncodedRequest
from uniprune.evaluation.runner import Runner
from uniprune.evaluation.shared_prefixes import check_shareable, common, groups_alike
from uniprune.evaluation.video_files import video_of
from uniprune.methods.divprune import DivPrune
from uniprune.methods.fastv import FastV
from uniprune.methods.random_pre import RandomPre
from uniprune.methods.vispruner import VisPruner
from uniprune.methods.vtw import VTW
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.loading import LoadedModel, Placement, load
from uniprune.modeling.messages import Part
from uniprune.pruning.base import Pruner
from uniprune.results.predictions import Prediction
from uniprune.results.store import Store

IMAGE_ID = 9
SHARING = frozenset({"a0", "a1", "a2", "b0", "b1", "again"})
"""Rows of `requests` that share what they begin with."""
TIMED = {"spans", "ttft", "tpot", "peak_bytes", "batch", "batching", "first"}
"""Fields that differ: `first` by rounding."""


def encoded(name: str, ids: Sequence[int], pixels: float = 0) -> EncodedRequest:
    return EncodedRequest(
        name, inputs={"input_ids": np.array([ids]), "pixel_values": np.full((1, 3, 2, 2), pixels, np.float32)}
    )


def names(groups: Sequence[Sequence[EncodedRequest]]) -> list[list[str]]:
    return [[row.index for row in group] for group in groups]


def test_rows_are_alike_up_to_their_last_image() -> None:
    rows = [
        encoded("a", [1, 9, 9, 2, 3, 4]),
        encoded("other pixels", [1, 9, 9, 2, 3, 5], 1.0),
        encoded("other text before", [2, 9, 9, 2, 3, 4]),
        encoded("b", [1, 9, 9, 2, 7]),
        encoded("ends with its image", [1, 9, 9]),
        EncodedRequest("text", inputs={"input_ids": np.array([[1, 2]])}),
    ]
    assert names(groups_alike(rows, [IMAGE_ID])) == []  # the shortest one has nothing left to answer
    found = groups_alike([*rows[:4], rows[5]], [IMAGE_ID])
    assert names(found) == [["a", "b"]]
    assert common(found[0]) == 4
    assert common([rows[0], rows[0]]) == 5, "a token is left to answer"


@pytest.mark.parametrize(("pruner", "reason"), [(FastV(), "question"), (RandomPre(), "draws at random for every row")])
def test_methods_that_choose_anew_for_every_row_are_refused(pruner: Pruner, reason: str) -> None:
    with pytest.raises(UserError, match=rf"^{type(pruner).__name__} .*{reason}"):
        check_shareable(pruner, 5)
    check_shareable(DivPrune() >> VTW(), 5)


def test_shared_features_and_prefixes_exclude_each_other() -> None:
    with pytest.raises(UserError, match="--share-vision and --share-prefix exclude each other"):
        RunSettings(Path(), Path(), share_vision=1, share_prefix=True)


def requests(kind: str = "image") -> list[Request]:
    """Questions about two images (or clips), one about a third, and one whose text stands first."""

    def shown(number: int) -> Part:
        if kind == "image":
            return Part(image=Image.linear_gradient("L").resize((96, 96)).rotate(90 * number))
        return Part(video=video_of([frame(number + place, (SIDE, SIDE)) for place in range(8)], 4.0))

    def row(name: str, number: int, text: str, first: bool = True) -> Request:
        parts = [shown(number), Part(text=text)]
        load = partial(list, parts if first else parts[::-1])
        return Request(name, load, text, 4, wording=(0, text), videos=int(kind == "video"))

    texts = ("is it red ?", "how many are there ?", "is there a circle ?")
    rows = [row(f"a{place}", 1, text) for place, text in enumerate(texts)]
    rows += [row(f"b{place}", 2, text) for place, text in enumerate(texts[:2])]
    return [*rows, row("alone", 3, texts[0]), row("behind", 1, texts[0], first=False), row("again", 1, texts[0])]


def predictions(loaded: LoadedModel, rows: Sequence[Request], pruner: Pruner, share: bool) -> dict[str, Prediction]:
    with Runner(loaded, pruner, 3, sampling=FrameSampling(4), share_prefix=share) as runner:
        return {one.index: one for batch in runner.predictions(rows) for one in batch}


def check(loaded: LoadedModel, rows: Sequence[Request], pruner: Pruner, expected: frozenset[str] = SHARING) -> None:
    alone, shared = (predictions(loaded, rows, pruner, share) for share in (False, True))
    for name, one in alone.items():
        assert shared[name].model_dump(exclude=TIMED) == one.model_dump(exclude=TIMED)
        assert shared[name].spans is None
    on_prefix = {name for name, one in shared.items() if one.batching == "1 with --share-prefix"}
    assert on_prefix == expected


@pytest.mark.sample(2)
@pytest.mark.end_to_end
@pytest.mark.parametrize("family", ["llava", "internvl", "qwen2.5-vl", "qwen3-vl"])
def test_predictions_are_those_of_rows_alone(family: str, checkpoint: Callable[[str], Path]) -> None:
    loaded = load(ModelEntry(name="tiny", source=str(checkpoint(family))), Placement("float32", "sdpa", "cpu"))
    for pruner in (RandomPre(ratio=1.0), DivPrune(ratio=0.25) >> VTW(ratio=0.4), VisPruner(ratio=0.5)):
        check(loaded, requests(), pruner)


@pytest.mark.end_to_end
@pytest.mark.parametrize("family", ["qwen2_5_vl", "glm4v", "llava_onevision"])
def test_so_are_those_about_videos(family: str) -> None:
    """Of Qwen2.5-VL they are answered row by row: positions in time go beyond those of the text."""
    expected = frozenset[str]() if family == "qwen2_5_vl" else SHARING
    check(video_model(family), requests("video"), DivPrune(ratio=0.5), expected)


@pytest.mark.end_to_end
def test_an_image_is_prefilled_once(checkpoint: Callable[[str], Path]) -> None:
    loaded = load(ModelEntry(name="tiny", source=str(checkpoint("llava"))), Placement("float32", "sdpa", "cpu"))
    calls: list[int] = []
    handle = loaded.adapter.vision.register_forward_hook(lambda module, args, output: calls.append(len(args[0])))
    predictions(loaded, requests()[:5], DivPrune(ratio=0.5), share=True)
    handle.remove()
    assert calls == [1, 1]


@pytest.mark.end_to_end
def test_the_command_shares_prefixes_under_one_identity(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    words = [
        "run",
        "--model",
        str(checkpoint("internvl")),
        "--data",
        "mini-pope",
        "--limit",
        "6",
        "--question",
        "hidden",
    ]
    words += ["--ratio", "0.25", "--output"]
    for name, more in (("alone", []), ("shared", ["--share-prefix"])):
        assert main([*words, str(tmp_path / name), "--method", "divprune", *more]) == 0
    [alone], [shared] = (list(Store(tmp_path / name).records()) for name in ("alone", "shared"))
    assert alone.identity == shared.identity
    assert alone.datasets["mini-pope"].score == shared.datasets["mini-pope"].score
    assert shared.datasets["mini-pope"].timing is None
    assert main([*words, str(tmp_path / "refused"), "--method", "random-pre", "--share-prefix"]) == 2
