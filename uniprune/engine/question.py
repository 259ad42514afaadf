"""Search for the question among a prompt's tokens, by the text that they decode to.

A tokenizer cuts a question differently inside a prompt than alone (SentencePiece: a leading space; BPE: "?" and the
line break after it are one token), so its ids are rarely those of the bare question. Decoded text is searched, not the
rendered template with a tokenizer's character offsets: processors expand image placeholders after rendering, and
tokenizers in Python have no offsets.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.host_copy import HOST
from uniprune.engine.kept_tokens import Bools, Ints
from uniprune.errors import UserError

_SKIPPED = re.compile(r"\s|<image ?\d*>")
"""Characters that templates and tokenizers add or remove, and marks of images that benchmarks write into a text."""
_PROBE = "#text#"


@dataclass(frozen=True)
class PromptInfo:
    """Identity of a prompt.

    Attributes:
        id: seeds the prompt's randomness, so that a result depends on neither batch nor order.
        question: [M] token ids of the bare question, for methods that read `view.prompt`.
        positions: [M] places of the question's tokens in the prompt, counted without padding, for methods that read
            attention from them; `QuestionFinder` finds them. Without them the ids of `question` are searched for.
        text: the question, for methods that read a text tower, which has a tokenizer of its own.
    """

    id: str
    question: Tensor | None = None
    positions: Tensor | None = None
    text: str | None = None

    def checked(self, real: Ints) -> Ints:
        """Return `positions` as columns of a padded batch, given those [L] of the prompt's own tokens.

        Raises:
            UserError: the prompt does not have these tokens.
        """
        assert self.positions is not None
        places: Ints = self.positions.to(HOST).long().numpy()
        if len(places) and not 0 <= int(places.min()) <= int(places.max()) < len(real):
            raise UserError(
                f"PromptInfo.positions of sample {self.id!r} are {int(places.min())} to {int(places.max())}, but the "
                f"prompt has {len(real)} tokens; count from 0, without padding"
            )
        columns: Ints = real[places]
        return columns


@dataclass(frozen=True)
class Found:
    """Tokens of a question.

    Attributes:
        positions: [M] in the prompt, sorted, none of them special or a visual placeholder.
        exact: False if the prompt does not contain the question; `positions` are then those of the user's whole text
            after the first image, without the words of the chat template.
    """

    positions: list[int]
    exact: bool


class QuestionFinder:
    """Finds questions in prompts of one processor.

    Tokens that belong to the question in part, such as "?" with the line break after it, are included. White space is
    not compared. Of several occurrences in the user's message, whole words are preferred to parts of words, then those
    after the first image, then those that begin or end a line (or follow a colon), then the last one.

    Args:
        processor: a processor with a chat template, its tokenizer in `processor.tokenizer`.
    """

    def __init__(self, processor: Any) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer

    def ids(self, question: str) -> list[int]:
        """Return the token ids of the bare question, special tokens left out."""
        ids = self.tokenizer(question, add_special_tokens=False)["input_ids"]
        return [one for one in ids if one not in self._special]

    def find(self, ids: Sequence[int], question: str) -> Found:
        """Find a question.

        Args:
            ids: [L] of the prompt, placeholders expanded, without padding.
            question: its text; may be interrupted by images.
        """
        image = next((place for place, one in enumerate(ids) if one in self._visual), 0)
        places = [place for place, one in enumerate(ids) if one not in self._special]
        tokens = _Decoded(self.tokenizer, [ids[place] for place in places])
        head, tail = self._frame
        start = len(head) * tokens.text.startswith(head)
        stop = len(tokens.text) - len(tail) * tokens.text.endswith(tail)
        after = max(start, len(tokens.before(bisect_left(places, image))))
        wanted = self._normal(question)
        hits = [at for at in _occurrences(tokens.text, wanted) if start <= at <= stop - len(wanted)]
        if hits:
            at = max(hits, key=lambda at: tokens.rank(at, at + len(wanted), edges=(start, after, stop), after=after))
            first, last = tokens.span(at, at + len(wanted))
        else:
            first, last = tokens.span(after, stop) if after < stop else (0, 0)
        return Found(places[first:last], exact=bool(hits))

    def info(self, name: str, ids: Tensor, question: str) -> PromptInfo:
        """Return the `PromptInfo` of a prompt with token ids [L], without padding.

        Raises:
            UserError: the prompt does not contain the question.
        """
        found = self.find(ids.tolist(), question)
        if not found.exact:
            raise UserError(
                f"the prompt of sample {name!r} does not contain the question {question!r}; give its tokens with "
                "PromptInfo(positions=…)"
            )
        return PromptInfo(name, torch.tensor(self.ids(question)), torch.tensor(found.positions), question)

    def _normal(self, text: str) -> str:
        """Return a text as it looks after encoding and decoding, special tokens and white space left out."""
        return _Decoded(self.tokenizer, self.ids(text)).text

    @cached_property
    def _frame(self) -> tuple[str, str]:
        """Text of the chat template before and after a user message."""
        message = {"role": "user", "content": [{"type": "text", "text": _PROBE}]}
        rendered = self.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        head, _, tail = rendered.partition(_PROBE)
        return self._normal(head), self._normal(tail)

    @cached_property
    def _visual(self) -> set[int]:
        """Ids of placeholders."""
        names = (getattr(self.processor, name, None) for name in ("image_token", "video_token"))
        return {self.tokenizer.convert_tokens_to_ids(name) for name in names if name is not None}

    @cached_property
    def _special(self) -> set[int]:
        """Ids that are no text; a word the tokenizer does not know is text."""
        added = {one for one, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return (added | set(self.tokenizer.all_special_ids)) - {self.tokenizer.unk_token_id} | self._visual


class _Decoded:
    """Text tokens and the characters they decode to, white space left out."""

    def __init__(self, tokenizer: Any, ids: list[int]) -> None:
        self._tokenizer, self._ids = tokenizer, ids
        self._written = self._decode(ids)
        skipped = {place for match in _SKIPPED.finditer(self._written) for place in range(*match.span())}
        self._kept = [place for place in range(len(self._written)) if place not in skipped]
        self.text = "".join(self._written[place] for place in self._kept)

    def before(self, token: int) -> str:
        """Return the characters before a token."""
        return self._between(0, token)

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range of the fewest tokens that hold characters `start` to `stop` in full.

        Ranges are tried one by one: cut inside a character, a whole run of bytes decodes to something else.
        """
        ends, count = self.text[start:], len(self._ids)
        first = next(i for i in reversed(range(count)) if self._between(i, count).endswith(ends))
        lead = len(self._between(first, count)) - len(ends)
        wanted = self.text[start:stop]
        last = next(j for j in range(first + 1, count + 1) if self._between(first, j).startswith(wanted, lead))
        return first, last

    def rank(self, start: int, stop: int, edges: tuple[int, ...], after: int) -> tuple[bool, bool, int, int]:
        """Return the order of preference of an occurrence; `edges` count as ends of lines."""
        first, last = self._kept[start], self._kept[stop - 1] + 1
        before, behind = self._written[:first], self._written[last:]
        cuts_first = before[-1:].isalnum() and self._written[first].isalnum()
        cuts_last = behind[:1].isalnum() and self._written[last - 1].isalnum()
        begins = start in edges or before.rstrip(" \t")[-1:] in ("\n", ":")
        ends = stop in edges or behind.lstrip(" \t")[:1] == "\n"
        return not (cuts_first or cuts_last), start >= after, begins + ends, start

    def _between(self, first: int, last: int) -> str:
        return _SKIPPED.sub("", self._decode(self._ids[first:last]))

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text


def _occurrences(text: str, wanted: str) -> Iterator[int]:
    """Yield the starts of all occurrences; none of an empty text."""
    at = text.find(wanted) if wanted else -1
    while at >= 0:
        yield at
        at = text.find(wanted, at + 1)


def question_positions(ids: Ints | None, text: Bools, image: int, question: Tensor | None, special: list[int]) -> Ints:
    """Return the positions [M] of the question's tokens in one row, from ids alone.

    Few tokenizers cut a question in a prompt as they cut it alone, and ids do not show which words are those of the
    chat template, so `uniprune.engine.question` is the better search wherever there is a tokenizer.

    Args:
        ids: [L] input ids, None for a prompt given as embeddings.
        text: [L] True at text tokens.
        image: position of the first visual token.
        question: [M] ids to search for: their first occurrence after the image, else anywhere. Without one, all text
            after the image that is no special token.
        special: ids of special tokens.
    """
    after = np.arange(len(text)) > image
    if ids is None:
        return (text & after).nonzero()[0]
    if question is not None and 0 < len(question) <= len(ids):
        wanted = question.to(HOST).numpy()
        hits = (np.lib.stride_tricks.sliding_window_view(ids, len(wanted)) == wanted).all(1).nonzero()[0]
        if len(hits):
            later = hits[hits > image]
            start = int(later[0] if len(later) else hits[0])
            return start + text[start : start + len(wanted)].nonzero()[0]
    return (text & after & ~np.isin(ids, special)).nonzero()[0]
