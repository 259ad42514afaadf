"""Position ids of kept tokens, carried by their embeddings from the vision tower to the language model.

vLLM computes the ids of a prompt before its images are encoded. The first axis of a placeholder is, and stays, the
place where its image begins, which no text after it reads; the offsets of the kept tokens on the other axes travel as
further channels of their embeddings, as vLLM's own pruning of videos has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

BASE = 256
"""Whole numbers up to this are exact in bfloat16, so a larger offset needs two channels: quotient and remainder."""
CHANNELS = 4
"""Channels of the offsets on two axes."""


def with_offsets(tokens: Tensor, offsets: Tensor) -> Tensor:
    """Return [k, D + 4] tokens [k, D] with their offsets [k, 2] on the second and third axis, below 65,536."""
    digits = torch.cat((offsets // BASE, offsets % BASE), dim=1)
    return torch.cat((tokens, digits.to(tokens)), dim=1)


def offsets_of(embeddings: Tensor) -> Tensor:
    """Return [2, k] offsets of embeddings [k, D + 4]."""
    quotient, remainder = embeddings[:, -CHANNELS:].round().long().T.split(2)
    offsets: Tensor = quotient * BASE + remainder
    return offsets


class MovedPositions:
    """Part of a model of vLLM: `SupportsMRoPE` and `SupportsMultiModalPruning` for pruned images.

    Attributes:
        placeholder: id of an image's tokens.
    """

    placeholder: int
    supports_multimodal_pruning = True
    supports_mrope = True

    def extent(self, feature: Any) -> int:
        """Return by how much an image moves the text after it: a feature of vLLM's request."""
        raise NotImplementedError

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[Tensor, int]:
        """Return [3, L] ids in which all tokens of an image have that of its first, and by how much they exceed L."""
        visual = torch.tensor(input_tokens) == self.placeholder
        advance = (~visual).long()
        for feature in mm_features:
            place = feature.mm_position
            last = place.offset + int(visual[place.offset : place.offset + place.length].nonzero()[-1])
            advance[last] = self.extent(feature)
        ends = advance.cumsum(0)
        return (ends - advance).expand(3, -1).clone(), int(ends[-1]) - len(input_tokens)

    def recompute_mrope_positions(
        self,
        input_ids: list[int] | Tensor,
        multimodal_embeddings: Sequence[Tensor],
        mrope_positions: Tensor,
        num_computed_tokens: int,
    ) -> tuple[Sequence[Tensor], Tensor, int]:
        """Move the kept tokens of a step to their places; see vLLM's `SupportsMultiModalPruning`.

        What was moved before, as after a preemption, is moved to the same places again.
        """
        positions = mrope_positions
        if len(multimodal_embeddings):
            visual = torch.as_tensor(input_ids, device=positions.device) == self.placeholder
            offsets = torch.cat([offsets_of(one) for one in multimodal_embeddings], dim=1).to(positions)
            columns = visual.nonzero()[:, 0]
            columns = columns[columns >= num_computed_tokens][: offsets.shape[1]]
            positions = positions.clone()
            positions[1:, columns] = positions[0, columns] + offsets
            multimodal_embeddings = [one[:, :-CHANNELS] for one in multimodal_embeddings]
        return multimodal_embeddings, positions, int(mrope_positions[0, -1]) + 1 - len(input_ids)
