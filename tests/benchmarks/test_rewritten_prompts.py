"""SmolVLM and Idefics3 rewrite the benchmark's message as VLMEvalKit's wrappers of them do, on the same rows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import transformers.image_utils

from tests.benchmarks.test_prompts import asked, modules
from uniprune.benchmarks._kit.tasks import TASKS
from uniprune.modeling.messages import RawQuestion
from uniprune.models.smolvlm import Idefics3, SmolVLM

pytestmark = pytest.mark.end_to_end

MERGED = {"SmolVLM2": 3, "SmolVLM": 3, "IDEFICS2": 2}
"""Wrapper -> patches per side of a token in its checkpoints; those of the last two have model type idefics3."""


class Caught(Exception):
    """The arguments that a wrapper passed to its processor."""


@pytest.fixture(scope="module")
def wrappers():
    """The kit's classes without weights, whose processor raises what it gets."""
    _, (smolvlm, idefics) = modules("smolvlm", "idefics")

    def caught(text, images, return_tensors):
        raise Caught(text, images)

    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.image_utils, "load_image", lambda image: image)
        patch.setattr(idefics, "load_image", lambda image: image)
        for cls in (smolvlm.SmolVLM2, smolvlm.SmolVLM, idefics.IDEFICS2):
            made[cls.__name__] = cls.__new__(cls)
            vars(made[cls.__name__]).update(processor=caught, sampling_frames=64)
        yield made


def ours(wrapper: str, row: RawQuestion) -> str:
    """The message inside the chat template of the checkpoints."""
    family = SmolVLM if wrapper == "SmolVLM2" else Idefics3
    pieces = family.prompt(SimpleNamespace(merge=MERGED[wrapper]), row)  # type: ignore[arg-type]
    assert pieces is not None and all(a for a in pieces if isinstance(a, str))
    start = "User:" if isinstance(pieces[0], int) else "User: "
    text = start + "".join("<image>" if isinstance(piece, int) else piece for piece in pieces)
    return f"{'' if wrapper == 'IDEFICS2' else '<|im_start|>'}{text}<end_of_utterance>\nAssistant:"


def theirs(wrapper, message, name):
    with pytest.raises(Caught, match="Assistant:") as caught:
        wrapper.generate_inner(message, dataset=name)
    return caught.value.args


@pytest.mark.sample(2)
@pytest.mark.parametrize("wrapper", MERGED)
@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_those_of_the_wrapper(name, wrapper, wrappers, tmp_path):
    dataset, requests = asked(name, tmp_path)
    for position, request in enumerate(requests):
        text, images = theirs(wrappers[wrapper], dataset._data.build_prompt(position), TASKS[name].kit_name)
        # A named difference: the checkpoint's chat template puts a blank before a message that begins with text.
        text = text.replace("User:Question", "User: Question") if name == "mmmu-pro" else text
        assert text.removesuffix(" Answer:") == ours(wrapper, request.raw)
        pieces = [piece for piece in request.raw.message if isinstance(piece, int)]
        assert len(images) == len(pieces) == text.count("<image>")


OPTIONS = "\nOptions:\nA. red\nB. blue\nPlease select the correct answer from the options above. \n"
MESSAGES = {
    "choice": [0, f"Question: Which?{OPTIONS}"],
    "hint": [0, f"Hint: Look\nclosely.\nQuestion: Which?{OPTIONS}"],
    "several": [0, "Compare ", 1, f" and  Question: it?{OPTIONS}"],
    "vista": [0, "Hint: Answer with the letter.\nQuestion: How many?\nChoices:\n(A) 1\n(B) 2"],
    "open": [0, " What is it?\n"],
}
NAMES = (
    *("MMBench_DEV_EN_V11", "CCBench", "MMMU_DEV_VAL", "MathVista_MINI", "ChartQA_TEST", "DocVQA_VAL", "TextVQA_VAL"),
    *("MME", "MMVet", "OCRVQA_TESTCORE", "InfoVQA_VAL", "OCRBench", "HallusionBench", "MMStar", "SEEDBench_IMG"),
    *("AI2D_TEST", "ScienceQA_VAL", "POPE", "RealWorldQA"),
)


@pytest.mark.parametrize("wrapper", MERGED)
@pytest.mark.parametrize("name", NAMES)
def test_every_rule_of_the_wrappers(name, wrapper, wrappers):
    """On messages of all forms, also of datasets that are not ours."""
    for kind, message in MESSAGES.items():
        if kind == "several" and name not in ("MMMU_DEV_VAL", "MMVet", "AI2D_TEST", "POPE"):
            continue  # the others show one image
        row = RawQuestion(name, "open", "", message=message)
        items = [{"type": "image" if isinstance(piece, int) else "text", "value": piece} for piece in message]
        if wrapper == "IDEFICS2" and name == "CCBench":
            continue  # unknown to it; the benchmark's question in Chinese is as in MMBench
        assert theirs(wrappers[wrapper], items, name)[0].removesuffix(" Answer:") == ours(wrapper, row)
