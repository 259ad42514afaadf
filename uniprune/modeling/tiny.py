"""Tiny random-weight models of a family and random prompts for them: what `check` and the tests run on.

A family names its `TinyModel` subclass, which knows the architecture's configuration and the form of its pixel inputs.
Nothing is trained, nothing is downloaded; a forward takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from uniprune.errors import UnsupportedError

Size = tuple[int, int]
"""Height and width of an image in visual tokens."""
LAYERS = 5
VOCAB, IMAGE, VIDEO, IMAGE_START, IMAGE_END, PAD = 300, 299, 298, 297, 296, 0
WORDS = (5, 290)
"""First and last-but-one id that stands for a word."""
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": PAD,
    "tie_word_embeddings": False,
}
"""Configuration of every decoder."""
VISION: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48}
"""What the configurations of all vision towers share."""


@dataclass(frozen=True)
class TinyPrompt:
    """One prompt, not yet part of a batch.

    Attributes:
        ids: token ids with placeholders. question: ids of the words at its end.
        pictures: pixel inputs of every image, in order. name: the sample's id.
    """

    ids: tuple[int, ...]
    question: tuple[int, ...]
    pictures: tuple[dict[str, Tensor], ...]
    name: str = "0"


class TinyModel:
    """A tiny model of one family whose images are `size` tokens, if that is fixed by the architecture.

    Subclasses write `config` and `picture`.
    """

    dynamic: ClassVar[bool] = False
    """Whether images of one model may differ in size."""
    opening: ClassVar[tuple[int, ...]] = ()
    """Ids in front of every image."""

    def __init__(self, size: Size = (4, 4)) -> None:
        self.size = size

    def config(self, text: dict[str, Any]) -> Any:
        """The Hugging Face configuration; `text` are the fields of its decoder's.

        Raises:
            UnsupportedError: the family has no tiny model.
        """
        raise UnsupportedError(
            "this model family has no tiny model to check methods on; give it a TinyModel "
            "(see uniprune/modeling/tiny.py)"
        )

    def picture(self, size: Size, tiles: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Random pixel inputs of one image, concatenated over images along dimension 0 to the model's arguments."""
        raise NotImplementedError(f"{type(self).__name__} must implement picture(size, tiles, generator)")

    def placeholders(self, size: Size, tiles: int) -> int:
        """How many placeholders such an image takes in the prompt."""
        return size[0] * size[1] * tiles

    def extras(self, ids: Tensor) -> dict[str, Tensor]:
        """Further model arguments that follow from `ids` [B, L]."""
        return {}

    def model(self, attention: str = "sdpa", dtype: torch.dtype = torch.float32, **text: Any) -> Any:
        """A new model in evaluation mode; the same weights every time. `text` changes fields of the decoder."""
        from transformers import AutoModelForImageTextToText

        with torch.random.fork_rng(devices=[]):
            model = AutoModelForImageTextToText.from_config(self.config(TEXT | text), attn_implementation=attention)
        spread(model, seed=1)
        model.generation_config.pad_token_id = PAD
        model.generation_config.eos_token_id = None
        return model.eval().to(dtype)

    def prompt(
        self,
        generator: torch.Generator,
        images: Sequence[Size] = (),
        before: int = 5,
        between: int = 3,
        question: int = 7,
        tiles: int = 1,
        name: str = "0",
    ) -> TinyPrompt:
        """A random prompt: `before` words, every image with `between` words behind it, `question` words."""

        def words(count: int) -> list[int]:
            return torch.randint(*WORDS, (count,), generator=generator).tolist()

        ids, pictures = words(before), []
        for size in images:
            ids += [*self.opening, *[IMAGE] * self.placeholders(size, tiles), *words(between)]
            pictures.append(self.picture(size, tiles, generator))
        asked = words(question)
        return TinyPrompt((*ids, *asked), tuple(asked), tuple(pictures), name)

    def batch(self, prompts: Sequence[TinyPrompt]) -> dict[str, Tensor]:
        """Left-padded arguments of `generate` and `forward`."""
        width = max(len(prompt.ids) for prompt in prompts)
        pads = [width - len(prompt.ids) for prompt in prompts]
        ids = torch.tensor([[PAD] * pad + list(prompt.ids) for pad, prompt in zip(pads, prompts, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
        pictures = [picture for prompt in prompts for picture in prompt.pictures]
        names = pictures[0] if pictures else ()
        pixels = {name: torch.cat([picture[name] for picture in pictures]) for name in names}
        return {"input_ids": ids, "attention_mask": mask, **self.extras(ids), **pixels}


def spread(model: nn.Module, seed: int) -> None:
    """Redraw all weights with a larger spread: the default gives near-uniform attention, which proves little."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.dim() >= 2 and "embed_tokens" not in name and "position_embedding" not in name:
                parameter.copy_(noise * (1.8 / parameter[0].numel() ** 0.5))
            elif "norm" in name and "weight" in name:
                parameter.copy_(1 + 0.1 * noise)
            elif "bias" in name or "cls_token" in name or "class_embedding" in name:
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(0.7 * noise)
