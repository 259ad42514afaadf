"""Parts of `--backend vllm` that need no server: messages, the check of prompts, first tokens, what a server says."""

from __future__ import annotations

import base64
import dataclasses
import io
from math import log

import numpy as np
import pytest
from PIL import Image

from uniprune.errors import UserError
from uniprune.evaluation.serving.chat import data_url, first_token, messages
from uniprune.evaluation.serving.client import checked_address
from uniprune.evaluation.serving.info import ServerInfo
from uniprune.evaluation.serving.prompt_check import kept_tokens
from uniprune.modeling.messages import Part
from uniprune.results.records import MethodRecord

IMAGE = 9
OWN = [1, 5, IMAGE, IMAGE, IMAGE, IMAGE, 6, IMAGE, IMAGE, 7]
"""Text, an image of four tokens, text, one of two tokens, text."""


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8))


def test_an_image_is_sent_with_every_pixel() -> None:
    found = Image.open(io.BytesIO(base64.b64decode(data_url(picture()).removeprefix("data:image/png;base64,"))))
    assert np.array_equal(np.asarray(found), np.asarray(picture()))


def test_messages_keep_the_order_of_a_row() -> None:
    image = picture()
    rows = messages([Part(text="be brief", system=True), Part(text="a"), Part(image=image), Part(text="b")])
    assert [row["role"] for row in rows] == ["system", "user"]
    assert rows[0]["content"] == [{"type": "text", "text": "be brief"}]
    assert [part["type"] for part in rows[1]["content"]] == ["text", "image_url", "text"]
    assert rows[1]["content"][1]["image_url"]["url"] == data_url(image)


def test_every_image_is_pruned_by_itself() -> None:
    assert kept_tokens(OWN, OWN, [IMAGE], 1.0, "0") == 6
    assert kept_tokens(OWN, [1, 5, IMAGE, IMAGE, 6, IMAGE, 7], [IMAGE], 0.5, "0") == 3
    assert kept_tokens([1, 5, 7], [1, 5, 7], [IMAGE], 0.5, "0") == 0


@pytest.mark.parametrize(
    "served",
    [
        OWN,  # not pruned
        [1, 5, IMAGE, 6, IMAGE, IMAGE, 7],  # the right number, of the wrong images
        [1, 5, IMAGE, IMAGE, 6, IMAGE, 8],  # another text
        [1, 1, 5, IMAGE, IMAGE, 6, IMAGE, 7],  # a start token twice
        [1, 5, IMAGE, IMAGE, 6, IMAGE],  # cut off
        [],
    ],
)
def test_any_other_prompt_is_refused(served: list[int]) -> None:
    with pytest.raises(
        UserError, match=r"another prompt of row 4 .* instead of 7, and from token \d .*--question hidden"
    ):
        kept_tokens(OWN, served, [IMAGE], 0.5, "4")


def test_a_first_token_is_stored_as_by_the_usual_backend() -> None:
    found = first_token({3: log(0.25), 8: log(0.5), 2: log(0.125)})
    assert (found.ids, found.logs) == ([8, 3, 2], [-0.69315, -1.38629, -2.07944])
    assert found.rest == pytest.approx(0.125)
    assert first_token({1: 1e-9}).logs == [0.0]  # rounding must not make it a probability above 1


def test_addresses() -> None:
    assert checked_address("http://a:1/v1/") == "http://a:1"
    with pytest.raises(UserError, match="'a:1' must be an address such as http"):
        checked_address("a:1")


def test_the_positions_that_a_server_assigns_are_a_part_of_what_it_serves() -> None:
    fields = {"ratio": 0.5, "seed": 0, "positions": "original"}
    method = MethodRecord(name="m", kind="pre-llm", passed={}, resolved=[fields], stages=[(0, 0.5)], code="c")
    places = {"address": "http://a", "model": "t", "dtype": "float32", "device": "cpu", "machine": "x"}
    info = ServerInfo(method="m", resolved=fields, code="c", weights="w", version="1", **places)  # type: ignore[arg-type]
    assert info.differences(method, "w") == []
    assert info.label == "m 0.5 positions=original"
    other = dataclasses.replace(info, resolved={**fields, "positions": "compact"})
    assert other.differences(method, "w") == ["positions compact, not original"]
    composed = method.model_copy(update={"name": "m+n", "resolved": [fields, fields]})
    assert info.differences(composed, "w") == ["method m, not m+n"]
    plain = method.model_copy(update={"kind": "none"})
    assert dataclasses.replace(info, resolved={"positions": "compact"}).differences(plain, "w") == []
