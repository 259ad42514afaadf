"""Who words the prompts: the benchmark, or the model's family in the way of its own evaluation.

Either way the words stand inside the model's chat template. The policy is part of a run's identity, because it moves
scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, overload

from uniprune.evaluation.dataset import Request
from uniprune.modeling.messages import Part, RawQuestion
from uniprune.utils.hashing import stable_hash

Policy = Literal["benchmark", "family"]
PromptBuilder = Callable[[RawQuestion], Sequence[str | int] | None]


class FamilyParts(Sequence[Part]):
    """A message worded by a family. Its pictures are decoded whenever looked at, its words are there.

    Args:
        pieces: texts, and positions of pictures. asked: the row.
    """

    def __init__(self, pieces: Sequence[str | int], asked: RawQuestion) -> None:
        self.pieces = tuple(pieces)
        self._asked = asked

    def __len__(self) -> int:
        return len(self.pieces)

    def __iter__(self) -> Iterator[Part]:
        return map(self._part, self.pieces)

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Part]: ...
    def __getitem__(self, index: int | slice) -> Part | Sequence[Part]:
        if isinstance(index, slice):
            return tuple(map(self._part, self.pieces[index]))
        return self._part(self.pieces[index])

    def _part(self, piece: str | int) -> Part:
        return Part(text=piece) if isinstance(piece, str) else Part(image=self._asked.pictures[piece])


def worded(request: Request, prompt: PromptBuilder) -> Request:
    """The request in a family's words, where the family has some for it."""
    pieces = prompt(request.asked) if request.asked is not None else None
    if request.asked is None or pieces is None:
        return request
    return dataclasses.replace(request, parts=FamilyParts(pieces, request.asked))


def prompts_hash(requests: Sequence[Request]) -> str:
    """Hash of what rows ask in words: index, question and longest answer of each, and a family's words for it."""
    rows = [
        (request.index, request.question, request.max_new_tokens)
        + (request.parts.pieces if isinstance(request.parts, FamilyParts) else ())
        for request in requests
    ]
    return stable_hash(rows)
