"""Prompts of SmolVLM and Idefics3: the benchmark's message rewritten, as VLMEvalKit's wrappers rewrite it.

The wrappers also begin the answers to questions with options for the model, with "Answer:". A message cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

from uniprune.modeling.messages import RawQuestion

SELECT, LETTER = "Please select the correct answer from the options above.", "Answer with the letter."
BRIEF, YES_NO = "\nGive a very brief answer.", "\nAnswer yes or no."
VQA = ("TextVQA_VAL", "TextVQA_TEST", "ChartQA_TEST", "DocVQA_VAL", "DocVQA_TEST")
ENDINGS = {
    **dict.fromkeys(("MME", "MMVet", "OCRVQA_TEST", "OCRVQA_TESTCORE", "InfoVQA_VAL", "InfoVQA_TEST"), BRIEF),
    "HallusionBench": YES_NO,
}
"""Dataset -> what both wrappers add to its questions."""
SMOLVLM_ENDINGS = {**ENDINGS, "OCRBench": BRIEF}
IDEFICS_ENDINGS = {**ENDINGS, **dict.fromkeys((VQA[0], *VQA[2:]), BRIEF)}
LETTERED = ("MMStar", "SEEDBench_IMG", "AI2D_TEST", "ScienceQA_VAL", "ScienceQA_TEST")
"""Datasets that get a request for the letter and nothing else."""
CHART = """For the question below, follow the following instructions:
-The answer should contain as few words as possible.
-Don't paraphrase or reformat the text you see in the image.
-Answer a binary question with Yes or No.
-When asked to give a numerical value, provide a number like 2 instead of Two.
-If the final answer has two or more items, provide it in the list format like [1, 2].
-When asked to give a ratio, give out the decimal value like 0.25 instead of 1:4.
-When asked to give a percentage, give out the whole value like 17 instead of decimal like 0.17%.
-Don't include any units in the answer.
-Do not include any full stops at the end of the answer.
-Try to include the full label from the graph when asked about an entity.
Question: """
DOCUMENT = (
    "Give a short and terse answer to the following question. Do not paraphrase or reformat the text you see in the "
    "image. Do not include any full stops. Just give the answer without additional explanation. Question: "
)
TEXT = """Answer the following question about the image using as few words as possible. Follow these additional \
instructions:
-Always answer a binary question with Yes or No.
-When asked what time it is, reply with the time seen in the image.
-Do not put any full stops at the end of the answer.
-Do not put quotation marks around the answer.
-An answer with one or two words is favorable.
-Do not apply common sense knowledge. The answer can be found in the image.
Question: """
INSTRUCTIONS = {name: {"T": TEXT, "C": CHART, "D": DOCUMENT}[name[0]] for name in VQA}
"""Dataset -> what SmolVLM's wrapper writes before its questions."""


def smolvlm2(asked: RawQuestion, apostrophe: str = "'") -> Sequence[str | int]:
    """Word a prompt as the wrapper of SmolVLM2."""
    if asked.benchmark in INSTRUCTIONS:
        return _joined(0, INSTRUCTIONS[asked.benchmark].replace("'", apostrophe), *_texts(asked))
    return _rewritten(asked, SMOLVLM_ENDINGS, "")


def smolvlm(asked: RawQuestion) -> Sequence[str | int]:
    """Word a prompt as the wrapper of SmolVLM, which has other apostrophes."""
    return smolvlm2(asked, "’")


def idefics3(asked: RawQuestion) -> Sequence[str | int]:
    """Word a prompt as the wrapper of Idefics3."""
    return _rewritten(asked, IDEFICS_ENDINGS, f"\n{LETTER}")


def _rewritten(asked: RawQuestion, endings: dict[str, str], lettered: str) -> Sequence[str | int]:
    """Word a prompt by dataset; `lettered` ends MathVista's questions with options."""
    name, choices = asked.benchmark, {"\nOptions:": "\nChoices:"}
    if name.startswith("MMBench") or name == "CCBench":
        texts = [_hint_last(text) for text in _texts(asked, choices | {SELECT: "Answer with a letter."})]
        return _joined(0, *texts)
    if name in ("MMMU_DEV_VAL", "MMMU_TEST"):
        return _numbered(asked, {"Question:": "", SELECT: LETTER, **choices})
    if name == "MathVista_MINI":
        options = {f"({letter}) ": f"{letter}. " for letter in "ABCDEFGH"}
        text = "".join(text.strip() for text in _texts(asked, options | choices | {"Hint: ": ""}))
        return _joined(0, text, lettered if "A." in text and "B." in text else "")
    replaced = choices | {SELECT: LETTER} if name in LETTERED else {}
    pieces = [piece if isinstance(piece, int) else _replaced(piece, replaced) for piece in asked.message]
    return _joined(*pieces, endings.get(name, ""))


def _texts(asked: RawQuestion, replaced: dict[str, str] | None = None) -> list[str]:
    """Return the texts of a benchmark's message, stripped, with these parts replaced in order."""
    return [_replaced(piece, replaced or {}) for piece in asked.message if isinstance(piece, str)]


def _replaced(text: str, parts: dict[str, str]) -> str:
    text = text.strip()
    for before, after in parts.items():
        text = text.replace(before, after)
    return text


def _hint_last(text: str) -> str:
    """Put a hint between question and options."""
    if not text.startswith("Hint:"):
        return text
    hint, question = text.split("\nQuestion:", 1)
    question, options = question.split("\nChoices:", 1)
    return f"Question:{question}\n{hint}\nChoices:{options}"


def _numbered(asked: RawQuestion, replaced: dict[str, str]) -> list[str | int]:
    """Show all images first, numbered, and put their numbers where they were."""
    pictures = [piece for piece in asked.message if isinstance(piece, int)]
    first = [piece for number, image in enumerate(pictures, 1) for piece in (f"<image {number}>:", image, "\n")]
    number, text = 0, ""
    for piece in asked.message:
        if isinstance(piece, int):
            number += 1
            text += f" <image {number}> "
        else:
            text += _replaced(piece, replaced).strip()
    return _joined("Question: ", *first, text)


def _joined(*pieces: str | int) -> list[str | int]:
    """Join texts that follow each other."""
    found: list[str | int] = []
    for piece in pieces:
        if isinstance(piece, str) and found and isinstance(found[-1], str):
            found[-1] += piece
        elif piece != "":
            found.append(piece)
    return found
