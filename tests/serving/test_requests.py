"""Requests of every kind: prefills in chunks, preempted ones, hits in caches, two images, none, and bad ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image

from tests.helpers.serving import RATIO, Asked, InVllm, method, questions

pytest.importorskip("vllm", reason="make serving")
pytestmark = [pytest.mark.serving, pytest.mark.timeout(900)]

SMALL = {"max_model_len": 192, "max_num_batched_tokens": 20, "block_size": 32, "num_gpu_blocks_override": 9}
"""Images are cut in two, and eight prompts with their answers do not fit the KV cache."""
DIVPRUNE = {"method": "divprune", "ratio": RATIO, "positions": "original"}


@pytest.fixture(params=("llava", "qwen2.5-vl"), scope="module")
def small(request: pytest.FixtureRequest, engine: Callable[..., InVllm]) -> InVllm:
    served: InVllm = engine(request.param, **SMALL)
    served.use(DIVPRUNE)
    return served


def test_prefills_in_chunks_give_the_same_answers(small: InVllm, reference) -> None:
    asked = questions(6)
    expected = [one.text for one in reference(small.family).answer(method("divprune", positions="original"), asked)]
    small.forget()
    assert [one.text for one in small.answer(asked)] == expected
    small.forget()
    assert [one.text for one in small.together(asked)] == expected


def test_preempted_requests_give_the_same_answers(small: InVllm) -> None:
    asked = questions(8, seed=3)
    long = {"max_tokens": 40, "ignore_eos": True}
    alone = [small.together([one], **long)[0] for one in asked]
    small.forget()
    before = small.count("num_preemptions")
    assert small.together(asked, **long) == alone
    assert small.count("num_preemptions") > before


def test_hits_in_the_prefix_cache_give_the_same_answers(small: InVllm) -> None:
    """A second question to an image finds its pruned tokens in the caches."""
    first, *others = questions(4, seed=4, images=2)  # more tokens than a block of the cache
    asked = [first, *(Asked(first.images, one.text) for one in others)]
    cold = []
    for one in asked:
        small.forget()
        cold += small.answer([one])
    small.forget()
    before = small.count("prefix_cache_hits")
    warm = small.answer(asked)
    assert [one.text for one in warm] == [one.text for one in cold]
    assert small.count("prefix_cache_hits") > before
    assert warm[1].kept == ()  # the tower did not run


def test_two_images_and_none(small: InVllm, reference) -> None:
    two = [*questions(3, seed=7, images=2), Asked((), "What is this?")]
    expected = reference(small.family).answer(method("divprune", positions="original"), two[:3])
    found = small.answer(two)
    assert [one.kept for one in found[:3]] == [one.kept for one in expected]
    assert [(one.text, one.prompt) for one in found[:3]] == [(one.text, one.prompt) for one in expected]
    assert found[3].prompt < 20


def test_two_questions_to_an_image_have_a_choice_each(small: InVllm, reference) -> None:
    """With both caches on, as the question is a part of the image's key."""
    first, *others = questions(4, seed=5, images=2)
    asked = [first, *(Asked(first.images, one.text) for one in others)]
    small.use({**DIVPRUNE, "method": "cdpruner"})
    expected = reference(small.family).answer(method("cdpruner", positions="original"), asked)
    for _ in range(2):
        found = small.answer(asked, reads_question=True)
        assert [one.text for one in found] == [one.text for one in expected]
    small.forget()
    found = small.answer(asked, reads_question=True)
    assert [one.kept for one in found] == [one.kept for one in expected]
    assert len({one.kept for one in found}) > 1
    with pytest.raises(ValueError, match=r"CDPruner reads the question, .* but the request has uniprune_question=None"):
        small.answer(asked[:1])
    small.use(DIVPRUNE)


def test_an_image_beyond_the_budget_is_refused_and_the_next_request_answered(small: InVllm) -> None:
    from vllm.exceptions import VLLMValidationError

    small.use({"method": "none", "positions": "original"})
    (asked,) = questions(1)
    many = Asked(asked.images * 5, asked.text)
    with pytest.raises(VLLMValidationError, match=r"\(length 7..\) is longer than the maximum model length of 192"):
        small.answer([many])
    small.use(DIVPRUNE)
    assert small.answer([asked])[0].text


def test_positions_beyond_the_model_are_refused(small: InVllm) -> None:
    """Few tokens are left of five images, but LLaVA's keep the positions of a prompt that it was not made for."""
    small.use(DIVPRUNE)
    asked = [Asked((Image.new("RGB", (96, 96)),) * 5, "How many?")]
    if small.family == "qwen2.5-vl":  # an image takes the positions of its side
        assert small.answer(asked)
        return
    with pytest.raises(ValueError, match=r"un-pruned prompt has 7.. positions, .* but the model has 512"):
        small.answer(asked)
