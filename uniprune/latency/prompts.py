"""Prompts of random pixels and words of an exact size: no processor, no data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.engine import PromptInfo
from uniprune.modeling.adapter import ModelAdapter

LEAST_TEXT = 2
"""Words a prompt needs: one before the images, one that asks."""


@dataclass(frozen=True)
class Prompts:
    """A batch.

    Attributes:
        inputs: arguments of `generate`, on the model's device. samples: who the rows are, with their questions.
    """

    inputs: dict[str, Tensor]
    samples: tuple[PromptInfo, ...]


def random_prompts(family: ModelAdapter, batch: int, visual: int, text: int, seed: int) -> Prompts:
    """`batch` prompts of `visual` visual tokens between `text` words, the second half of which is the question.

    Raises:
        UserError: the family cannot encode that many visual tokens.
    """
    model = family.model
    generator = torch.Generator().manual_seed(seed)
    pictures = [family.random_image(visual, generator) for _ in range(batch)]
    vocabulary = model.get_input_embeddings().num_embeddings
    plain = torch.ones(vocabulary, dtype=torch.bool)
    plain[[i for i in (*family.special_token_ids, *family.visual_token_ids) if i < vocabulary]] = False
    known = plain.nonzero()[:, 0]
    words = known[torch.randint(len(known), (batch, text), generator=generator)]
    images = torch.full((batch, family.placeholders(visual)), family.visual_token_ids[0])
    ids = torch.cat((words[:, : text // 2], images, words[:, text // 2 :]), dim=1)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        **family.id_arguments(ids),
        **{name: torch.cat([picture[name] for picture in pictures]) for name in pictures[0]},
    }
    inputs = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        for name, value in inputs.items()
    }
    samples = tuple(PromptInfo(str(row), question) for row, question in enumerate(words[:, text // 2 :]))
    return Prompts(inputs, samples)
