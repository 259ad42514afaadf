"""Tiny random-weight models of a family and random prompts for them, on which `check` and the tests run.

A family registers a `TinyModel` subclass, which gives the architecture's configuration. Nothing is trained, nothing is
downloaded; a forward takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.families import find_adapter
from uniprune.modeling.random_images import Size
from uniprune.registry import MODELS

LAYERS = 5
VOCAB, IMAGE, VIDEO, IMAGE_START, IMAGE_END, PAD = 300, 299, 298, 297, 296, 0
WORDS = (5, 290)
"""First and last-but-one id of the words."""
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
"""Configuration that all vision towers share."""


@dataclass(frozen=True)
class TinyPrompt:
    """One prompt, not yet part of a batch.

    Attributes:
        ids: token ids with placeholders.
        question: ids of the words at its end.
        images: pixel inputs of every image, in order, then those of every video.
        name: the sample's id.
    """

    ids: tuple[int, ...]
    question: tuple[int, ...]
    images: tuple[dict[str, Tensor], ...]
    name: str = "0"


class TinyModel:
    """A tiny model of one family, with prompts for it. Subclasses write `config`.

    Args:
        size: visual tokens of an image or tile, if the architecture fixes them.
    """

    dynamic: ClassVar[bool] = False
    """True if images of one model may differ in size."""
    opening: ClassVar[tuple[int, ...]] = ()
    """Ids before every image."""

    def __init__(self, size: Size = (4, 4)) -> None:
        self.size = size

    def config(self, text: dict[str, Any]) -> Any:
        """Return the Hugging Face configuration; `text` holds the fields of the decoder's."""
        raise NotImplementedError(f"{type(self).__name__} must implement config(text)")

    def model(self, attention: str = "sdpa", dtype: torch.dtype = torch.float32, **text: Any) -> Any:
        """Build a model in evaluation mode, with the same weights every time; `text` changes fields of the decoder."""
        from transformers import AutoModelForImageTextToText

        with torch.random.fork_rng(devices=[]):
            model = AutoModelForImageTextToText.from_config(self.config(TEXT | text), attn_implementation=attention)
        spread(model, seed=1)
        model.generation_config.pad_token_id = PAD
        model.generation_config.eos_token_id = None
        return model.eval().to(dtype)

    @cached_property
    def adapter(self) -> ModelAdapter:
        """The family's adapter, on a model without weights."""
        from transformers import AutoModelForImageTextToText

        with torch.device("meta"):
            return find_adapter(AutoModelForImageTextToText.from_config(self.config(TEXT)))

    def prompt(
        self,
        generator: torch.Generator,
        images: Sequence[Size] = (),
        before: int = 5,
        between: int = 3,
        question: int = 7,
        tiles: int = 1,
        name: str = "0",
        clips: int = 0,
    ) -> TinyPrompt:
        """Build a random prompt: `before` words, every image and video followed by `between` words, `question` words.

        Raises:
            UnsupportedError: the family takes no videos.
        """
        if clips and not self.adapter.videos:
            raise UnsupportedError(f"videos of family {self.adapter.model.config.model_type} are not supported")

        def words(count: int) -> list[int]:
            return torch.randint(*WORDS, (count,), generator=generator).tolist()

        ids, pixels = words(before), []
        for number, size in enumerate(images):
            count = self.tiles(number, tiles)
            ids += [*self.opening, *self.adapter.image_ids(size, count), *words(between)]
            pixels.append(self.adapter.random_image(size, count, generator))
        for _ in range(clips):
            placed, video = self.clip(generator)
            ids += [*placed, *words(between)]
            pixels.append(video)
        end = words(question)
        return TinyPrompt((*ids, *end), tuple(end), tuple(pixels), name)

    def batch(self, prompts: Sequence[TinyPrompt]) -> dict[str, Tensor]:
        """Return the left-padded arguments of `generate` and `forward`."""
        width = max(len(prompt.ids) for prompt in prompts)
        pads = [width - len(prompt.ids) for prompt in prompts]
        ids = torch.tensor([[PAD] * pad + list(prompt.ids) for pad, prompt in zip(pads, prompts, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
        pixels = self.visual_inputs([prompt.images for prompt in prompts])
        return {"input_ids": ids, "attention_mask": mask, **self.adapter.id_arguments(ids), **pixels}

    def tiles(self, number: int, tiles: int) -> int:
        """Return the tiles of image `number` of a prompt, for which `tiles` were given."""
        return tiles

    def visual_inputs(self, rows: Sequence[Sequence[dict[str, Tensor]]]) -> dict[str, Tensor]:
        """Join the pixel inputs of the images of every row."""
        images = [image for row in rows for image in row]
        names = dict.fromkeys(name for image in images for name in image)
        return {name: torch.cat([image[name] for image in images if name in image]) for name in names}

    def clip(self, generator: torch.Generator) -> tuple[list[int], dict[str, Tensor]]:
        """Return the ids and the pixel inputs of a random video; written by families that take videos."""
        raise NotImplementedError(f"{type(self).__name__} must implement clip(generator)")


def tiny_model(family: str, size: Size = (4, 4)) -> TinyModel:
    """Return the tiny model that a family registered.

    Raises:
        UserError: an unknown family.
        UnsupportedError: it has no tiny model.
    """
    entry = MODELS.entry(family)
    if "tiny" not in entry.metadata:
        raise UnsupportedError(
            f"model family {family!r} has no tiny model to check methods on; write one (see uniprune/modeling/tiny.py) "
            f"and register it: @register_model({family!r}, tiny=…)"
        )
    tiny: TinyModel = entry.metadata["tiny"](size)
    return tiny


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
