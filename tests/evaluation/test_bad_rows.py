"""Rows that a model cannot be asked: each is named and left out, and the others are scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import checkpoints
from tests.helpers.paths import PLUGINS
from tests.helpers.real_processors import CHECKPOINTS, processor
from tests.helpers.video_models import SIDE, video_processor
from uniprune.cli.main import main
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.processing import RequestEncoder
from uniprune.modeling.messages import VISUAL_TOKENS, Part
from uniprune.results.store import Store

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("family", ["llava", "internvl", "qwen2.5-vl", "qwen3_vl"])
def test_rows_that_cannot_be_asked_are_named_and_left_out(
    family: str,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved = family in checkpoints.PROCESSORS
    model = checkpoints.save(family, tmp_path / "model") if saved else checkpoint(family)
    words = ["--plugin", str(PLUGINS / "bad_rows.py"), "--model", str(model), "--method", "none", "fastv"]
    words += ["--ratio", "0.25", "--data", "bad-rows", "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in printed
    film = set() if family == "llava" else {"film"}  # its processor knows no videos, so the word is a word
    for record in Store(tmp_path / "out").records():
        entry = record.datasets["bad-rows"]
        assert set(entry.faulty) == {"typed", "typed, no image", "flat", *film}
        reasons = [entry.faulty[name] for name in ("typed", "typed, no image")]
        assert all("contains '<image>', which the model reads as" in reason for reason in reasons)
        assert "an image of 0x5 has no pixels" in entry.faulty["flat"]
        assert entry.score is not None
        assert (entry.refused, entry.score.rows) == (len(entry.faulty), 6 - len(entry.faulty))
        assert all(f"bad-rows: row {name} is left out: the model's processor: " in printed for name in entry.faulty)
        assert ("row many takes" in printed) == (entry.remarks.get("context", 0) > 0)
    assert ("row many takes" in printed) == (family in ("llava", "internvl")), "M-RoPE counts no rows of an image"


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_placeholders_in_a_text_are_refused_by_every_processor(name: str) -> None:
    """With an image, without one, and next to as many images as there are placeholders."""
    encoder, image = RequestEncoder(processor(name)), Part(image=Image.new("RGB", (64, 48)))
    for token in filter(None, (getattr(processor(name), one, None) for one in VISUAL_TOKENS)):
        for parts in ([image, Part(text=f"a {token} b")], [Part(text=token)]):
            row = encoder.encode(Request("0", lambda parts=parts: parts, "a"))  # type: ignore[misc]
            assert f"contains '{token}', which the model reads as" in str(row.error)
            assert not row.inputs
    other = encoder.encode(Request("0", lambda: [image, Part(text="<a> <image 1> <|b|>")], "a"))
    assert other.error is None


@pytest.mark.parametrize("mark", ["<|begin_of_video|>", "<|end_of_video|>"])
def test_marks_that_make_a_video_of_an_image_are_refused(mark: str) -> None:
    """GLM's placeholders of images are those of a video where they stand between these."""
    encoder, image = RequestEncoder(video_processor("glm4v")), Part(image=Image.new("RGB", (SIDE, SIDE)))
    row = encoder.encode(Request("0", lambda: [Part(text=f"a {mark} b"), image], "a"))
    assert f"a text of the message contains {mark!r}, which the model reads as" in str(row.error)
    assert encoder.encode(Request("0", lambda: [Part(text="a video"), image], "a")).error is None


def test_whatever_a_processor_raises_is_a_row_left_out() -> None:
    """Not a run that ends."""
    encoder = RequestEncoder(processor(CHECKPOINTS[0]))

    class Picky:
        tokenizer, image_token = encoder.tokenizer, "<image>"

        def apply_chat_template(self, *words: object, **named: object) -> str:
            raise KeyError("content")

    row = RequestEncoder(Picky()).encode(Request("7", lambda: [Part(text="a")], "a"))
    assert row.error == "the model's processor: KeyError: 'content'"
