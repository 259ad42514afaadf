"""Random prompts with an exact number of words and visual tokens, without processor or data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uniprune.engine import PromptInfo
from uniprune.modeling.adapter import ModelAdapter

LEAST_TEXT = 2
"""Words a prompt needs: one before the image, one question."""


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts.

    Attributes:
        inputs: arguments of `generate`, on the model's device.
        samples: names of the rows, with the ids of their questions.
    """

    inputs: dict[str, Tensor]
    samples: tuple[PromptInfo, ...]


def random_prompts(adapter: ModelAdapter, batch: int, visual: int, text: int, seed: int) -> Prompts:
    """Build `batch` prompts of `visual` visual tokens between `text` words, the second half of which is the question.

    What a processor of the family writes between the placeholders of an image comes on top.

    Raises:
        UserError: the model cannot encode that many visual tokens.
    """
    model = adapter.model
    generator = torch.Generator().manual_seed(seed)
    size, tiles = adapter.image_of(visual)
    images = [adapter.random_image(size, tiles, generator) for _ in range(batch)]
    vocabulary = model.get_input_embeddings().num_embeddings
    plain = torch.ones(vocabulary, dtype=torch.bool)
    plain[[i for i in (*adapter.special_token_ids, *adapter.visual_token_ids) if i < vocabulary]] = False
    known = plain.nonzero()[:, 0]
    words = known[torch.randint(len(known), (batch, text), generator=generator)]
    image = torch.tensor(adapter.image_ids(size, tiles)).expand(batch, -1)
    ids = torch.cat((words[:, : text // 2], image, words[:, text // 2 :]), dim=1)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        **adapter.id_arguments(ids),
        **{name: torch.cat([image[name] for image in images]) for name in images[0]},
    }
    inputs = {
        name: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        for name, value in inputs.items()
    }
    samples = tuple(PromptInfo(str(row), question) for row, question in enumerate(words[:, text // 2 :]))
    return Prompts(inputs, samples)
