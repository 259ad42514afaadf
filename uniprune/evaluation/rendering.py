"""Chat templates, with images kept at their places among the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from uniprune.modeling.messages import Part

_MARK = "#part{}#"
_MARKS = re.compile(_MARK.format("[0-9]+"))


class ChatTemplate:
    """A processor's chat template.

    Some templates write all images of a message before all of its text. Where that would move an image, the message
    becomes one text that holds the images' placeholders, a space on either side.

    Args:
        processor: the model's processor.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._kept: dict[tuple[bool, ...], bool] = {}

    def render(self, parts: Sequence[Part]) -> str:
        """Return the prompt of a user message, with the system message before it, if one is given.

        Raises:
            ValueError: images and text would be in another order, whichever way the message is given.
        """
        system = next((part.text for part in parts if part.system), None)
        texts = [part.text for part in parts if not part.system]
        if self._keeps_order(tuple(text is None for text in texts)):
            return self._apply(texts, system)
        image = f" {self._image()} " if None in texts else ""
        return self._apply(["".join(image if text is None else text for text in texts)], system)

    def _keeps_order(self, images: tuple[bool, ...]) -> bool:
        """Check whether the template writes parts in their order, by rendering marks in place of texts."""
        if len(images) > 1 and images not in self._kept:
            marked = [None if image else _MARK.format(number) for number, image in enumerate(images)]
            wanted = [self._token if mark is None else mark for mark in marked]
            self._kept[images] = self._order(self._apply(marked)) == wanted
        return self._kept.get(images, True)

    def _image(self) -> str:
        """Return the text that the template writes for an image, without white space around it.

        Raises:
            ValueError: the template does not accept it inside a text.
        """
        first, second = _MARK.format(0), _MARK.format(1)
        head = _MARKS.split(self._apply([first]))[0]
        image = _MARKS.split(self._apply([None, first]))[0].removeprefix(head).strip()
        inlined = f"{first} {image} {second}"
        if self._order(image) != [self._token] or inlined not in self._apply([inlined]):
            raise ValueError(
                "the chat template moves the parts of a message from their places and does not accept placeholders of "
                "images inside a text; give the model a template that keeps the order of a message"
            )
        return image

    def _order(self, text: str) -> list[str]:
        """Return placeholders of images and marks in the order of a text."""
        return re.findall(f"{re.escape(self._token)}|{_MARKS.pattern}", text)

    @property
    def _token(self) -> str:
        """Placeholder of an image before it is expanded."""
        token: str = self._processor.image_token
        return token

    def _apply(self, texts: Sequence[str | None], system: str | None = None) -> str:
        """Render a user message of texts and images (None), followed by the opening of the reply."""
        content = [{"type": "image"} if text is None else {"type": "text", "text": text} for text in texts]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        prompt: str = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return prompt
