"""Wordings that families share, identical to VLMEvalKit's wrappers."""

from __future__ import annotations

import re

from uniprune.modeling.messages import RawQuestion

SHORT = "Answer the question using a single word or phrase."

_CHINESE = re.compile("[\u4e00-\u9fff]")


def is_chinese(text: str) -> bool:
    """Check whether a text has a Chinese character."""
    return _CHINESE.search(text) is not None


def letter(asked: RawQuestion) -> str:
    """Join hint, question and options, a line each, with the request for nothing but the answer."""
    hint = [] if asked.hint is None else [asked.hint]
    text = "\n".join([*hint, asked.text, *(f"{name}. {option}" for name, option in asked.options.items())])
    english, chinese = (
        ("Answer with the option's letter from the given choices directly.", "请直接回答选项字母。")
        if asked.options
        else ("Answer the question directly.", "请直接回答问题。")
    )
    return f"{text}\n{chinese if is_chinese(text) else english}"


def option_letter(asked: RawQuestion) -> list[str | int] | None:
    """Word LLaVA's prompt for questions with options: images, then `letter`. None leaves others to the benchmark."""
    return [*range(len(asked.images)), letter(asked)] if asked.kind == "choice" else None
