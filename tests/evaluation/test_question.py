"""The question's tokens in prompts of real chat templates and tokenizers, cut differently there than alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from transformers import ByT5Tokenizer

from tests.helpers.real_processors import CHECKPOINTS, processor, processor_with, template
from uniprune.engine import QuestionFinder
from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.processing import EncodedRequest, RequestEncoder
from uniprune.modeling.messages import Part

checkpoint = pytest.mark.parametrize("name", CHECKPOINTS)
Q = "Is there a dog in the image?"
IMAGE = Part(image=Image.new("RGB", (80, 60), "red"))


def encode(built: Any, question: str, *parts: str | Part) -> EncodedRequest:
    message = [Part(text=part) if isinstance(part, str) else part for part in parts]
    row = RequestEncoder(built).encode(Request("0", lambda: message, question=question))
    assert row.error is None
    return row


def asked(built: Any, row: EncodedRequest) -> str:
    """Decode the question's tokens one after the other in the prompt."""
    text: str = built.tokenizer.decode(row.inputs["input_ids"][0][row.asked])
    return text.strip()


FORMS: dict[str, tuple[str, tuple[str | Part, ...]]] = {
    "alone": (Q, (IMAGE, Q)),
    "a request on the same line": (Q, (IMAGE, f"{Q} Please answer yes or no.")),
    "a request on the next line": (Q, (IMAGE, f"{Q}\nAnswer the question using a single word or phrase.")),
    "after a label, with options": (Q, (IMAGE, f"Question: {Q}\nOptions:\nA. yes\nB. no\nPlease select. \n")),
    "in a hint and an option, too": (Q, (IMAGE, f"Hint: {Q} Look.\nQuestion: {Q}\nOptions:\nA. {Q}\nB. no\n")),
    "in an option after it, too": (Q, (IMAGE, f"{Q}\nA. {Q}\nB. no\nAnswer with the letter.")),
    "two images": (Q, ("Image-1: ", IMAGE, "Image-2: ", IMAGE, f"{Q}\nA. yes")),
    "before the image only": (Q, (f"{Q}\n", IMAGE)),
    "without image": (Q, (f"{Q}\nA. yes",)),
    "other white space": ("How  many\ncats?", (IMAGE, "\tHow many \r\n cats?\nA. 1")),
    "unknown characters": ("图中鿎和🙂是什么?", (IMAGE, "提示:看图\n图中鿎和🙂是什么?\nA. 狗")),
    "a word that is part of others": ("art", (IMAGE, "A part of art? Cart.")),
    "a word of the template": ("assistant", (IMAGE, "user: name the assistant\nuser")),
}


@checkpoint
@pytest.mark.parametrize("form", FORMS)
def test_the_question_is_found(name: str, form: str) -> None:
    question, parts = FORMS[form]
    built = processor(name)
    row = encode(built, question, *parts)
    assert row.remarks == ()
    assert asked(built, row).split() == question.split()
    assert row.asked.tolist() == list(range(row.asked[0], row.asked[-1] + 1))
    assert built.tokenizer.decode(row.question).strip() == question


SPLIT: list[tuple[str | Part, ...]] = [
    ("In the figure ", IMAGE, ", what is it?\nA. x"),
    (IMAGE, "In the figure <image 1>, what is it?\nA. x"),
]


@checkpoint
def test_of_several_occurrences_one_after_the_image_and_on_a_line_of_its_own(name: str) -> None:
    """Counted in the message: an occurrence before the image, in a hint, as the question, in an option."""
    built = processor(name)
    row = encode(built, Q, f"{Q}\n", IMAGE, f"Why {Q} Hint.\nQuestion: {Q}\nA. {Q} \nB. no")
    ids = row.inputs["input_ids"][0]
    assert built.tokenizer.decode(ids[: row.asked[0]]).count(Q) == 2
    assert built.tokenizer.decode(ids[row.asked[-1] + 1 :]).count(Q) == 1


@checkpoint
def test_of_equal_occurrences_the_last_is_the_question(name: str) -> None:
    built = processor(name)
    row = encode(built, Q, IMAGE, f"{Q}\n{Q}\nA. yes")
    assert Q not in built.tokenizer.decode(row.inputs["input_ids"][0][row.asked[-1] + 1 :])


@pytest.mark.parametrize(("name", "word"), [(CHECKPOINTS[0], "ASSISTANT"), (CHECKPOINTS[2], "assistant")])
def test_a_word_of_the_template_is_no_question(name: str, word: str) -> None:
    built = processor(name)
    row = encode(built, word, IMAGE, Q)
    assert (row.remarks, asked(built, row)) == (("question not found",), Q)


def test_the_traps_are_those_of_real_tokenizers() -> None:
    """The ids of the bare question occur in neither prompt."""
    for name, cut in ((CHECKPOINTS[0], "Is"), (CHECKPOINTS[2], "?Ċ")):
        row = encode(processor(name), Q, IMAGE, f"{Q}\nA. yes")
        tokens = processor(name).tokenizer.convert_ids_to_tokens(row.inputs["input_ids"][0][row.asked])
        assert cut in (tokens[0], tokens[-1])
        assert len(row.asked) == len(row.question)
        assert (row.inputs["input_ids"][0][row.asked] != row.question).sum() == 1


@checkpoint
@pytest.mark.parametrize("parts", SPLIT, ids=["by an image", "by its mark"])
def test_a_question_around_an_image_holds_no_placeholder(name: str, parts: tuple[str | Part, ...]) -> None:
    built = processor(name)
    row = encode(built, "In the figure , what is it?", *parts)
    assert row.remarks == ()
    words = asked(built, row).replace("<image 1>", "").split()
    assert "".join(words) == "Inthefigure,whatisit?"
    placeholder = built.tokenizer.convert_tokens_to_ids(built.image_token)
    assert placeholder not in row.inputs["input_ids"][0][row.asked]


@checkpoint
def test_a_question_that_the_prompt_lacks_is_remarked(name: str) -> None:
    """The user's whole text after the image stands for it, without a word of the template."""
    built = processor(name)
    row = encode(built, "Where is the cat?", "Look. ", IMAGE, f"{Q}\nA. yes")
    assert row.remarks == ("question not found",)
    assert asked(built, row) == f"{Q}\nA. yes"
    row = encode(built, " ", IMAGE, Q)
    assert (row.remarks, asked(built, row)) == (("question not found",), Q)


@checkpoint
def test_special_tokens_are_no_part_of_a_question(name: str) -> None:
    built = processor(name)
    special = built.tokenizer.eos_token
    row = encode(built, f"What means {special} in it?", IMAGE, f"What means {special} in it?\nA. x")
    assert row.remarks == ()
    assert "".join(asked(built, row).split()) == "Whatmeansinit?"
    assert built.tokenizer.eos_token_id not in row.question


def test_tokenizers_without_offsets() -> None:
    """Tokenizers in Python have none; this one also spreads a character over several tokens."""
    tokenizer = ByT5Tokenizer(extra_ids=0, additional_special_tokens=["<image>"])
    assert not tokenizer.is_fast
    name, question = CHECKPOINTS[0], "图中是什么?"
    built = processor_with(name, template(name), tokenizer)
    row = encode(built, question, IMAGE, f"提示:看图\n{question}\nA. 狗")
    assert asked(built, row) == question
    assert len(row.asked) == len(question.encode())


@checkpoint
def test_prompts_of_ones_own(name: str) -> None:
    built = processor(name)
    row = encode(built, Q, IMAGE, f"{Q}\nA. yes")
    ids = torch.from_numpy(row.inputs["input_ids"][0])
    info = QuestionFinder(built).info("17", ids, Q)
    assert info.id == "17"
    assert info.positions is not None and info.positions.tolist() == row.asked.tolist()
    assert info.question is not None and info.question.tolist() == row.question.tolist()
    with pytest.raises(UserError, match=r"sample '17' does not contain the question 'Where\?'; give .*positions"):
        QuestionFinder(built).info("17", ids, "Where?")
