"""Chat templates, with images and videos kept at their places among the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from uniprune.modeling.messages import Kind, Part

_MARK = "#part{}#"
_MARKS = re.compile(_MARK.format("[0-9]+"))


class ChatTemplate:
    """A processor's chat template.

    Some templates write all images of a message before all of its text. Where that would move an image, the message
    becomes one text that holds the images' placeholders, a space on either side. So with videos.

    Args:
        processor: the model's processor.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._kept: dict[tuple[Kind, ...], bool] = {}

    def render(self, parts: Sequence[Part]) -> str:
        """Return the prompt of a user message, with the system message before it, if one is given.

        Raises:
            ValueError: images and text would be in another order, whichever way the message is given.
        """
        system = next((part.text for part in parts if part.system), None)
        pieces = [(part.kind, part.text or "") for part in parts if not part.system]
        if self._keeps_order(tuple(kind for kind, _ in pieces)):
            return self._apply(pieces, system)
        shown: dict[Kind, str] = {kind: f" {self._written(kind)} " for kind, _ in pieces if kind != "text"}
        return self._apply([("text", "".join(shown.get(kind, text) for kind, text in pieces))], system)

    def writes(self, kind: Kind) -> bool:
        """Check whether the template writes a placeholder for an image or a video."""
        return self._order(self._apply([(kind, "")])) == [self._token(kind)]

    def _keeps_order(self, kinds: tuple[Kind, ...]) -> bool:
        """Check whether the template writes parts in their order, by rendering marks in place of texts."""
        if len(kinds) > 1 and kinds not in self._kept:
            marked = [(kind, _MARK.format(number)) for number, kind in enumerate(kinds)]
            wanted = [mark if kind == "text" else self._token(kind) for kind, mark in marked]
            self._kept[kinds] = self._order(self._apply(marked)) == wanted
        return self._kept.get(kinds, True)

    def _written(self, kind: Kind) -> str:
        """Return the text that the template writes for an image or a video, without white space around it.

        Raises:
            ValueError: the template does not accept it inside a text.
        """
        first, second = _MARK.format(0), _MARK.format(1)
        head = _MARKS.split(self._apply([("text", first)]))[0]
        written = _MARKS.split(self._apply([(kind, ""), ("text", first)]))[0].removeprefix(head).strip()
        inlined = f"{first} {written} {second}"
        if self._order(written) != [self._token(kind)] or inlined not in self._apply([("text", inlined)]):
            raise ValueError(
                "the chat template moves the parts of a message from their places and does not accept placeholders of "
                f"{kind}s inside a text; give the model a template that keeps the order of a message"
            )
        return written

    def _order(self, text: str) -> list[str]:
        """Return placeholders of images and videos, and marks, in the order of a text."""
        tokens = [re.escape(token) for token in (self._token("image"), self._token("video")) if token]
        return re.findall("|".join([*tokens, _MARKS.pattern]), text)

    def _token(self, kind: Kind) -> str:
        """Return the placeholder of an image or a video before it is expanded; empty if the processor has none."""
        return getattr(self._processor, f"{kind}_token", None) or ""

    def _apply(self, pieces: Sequence[tuple[Kind, str]], system: str | None = None) -> str:
        """Render a user message, followed by the opening of the reply."""
        content = [{"type": kind, "text": text} if kind == "text" else {"type": kind} for kind, text in pieces]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        prompt: str = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return prompt
