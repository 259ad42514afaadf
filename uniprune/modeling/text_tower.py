"""Text towers of CLIP checkpoints, whose vision tower a model has: the question in the space of both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniprune.errors import UserError

CLIP_TOWER = "clip_vision_model"
"""Model type of the vision towers that have one."""
_IMAGE = re.compile(r"<image ?\d*>")
"""Marks of images that benchmarks write into a question."""


@dataclass(frozen=True)
class QuestionText:
    """A question in the space of vision and text tower.

    Attributes:
        words: [M, E] last states of its tokens, the special ones included, projected.
        summary: [E] its projected embedding.
        tower: projects features.
    """

    words: Tensor
    summary: Tensor
    tower: ClipTexts

    def project(self, features: Tensor, normed: bool = False) -> Tensor:
        """Return [..., E] of the tower's features [..., C], through its last norm first if `normed`."""
        return self.tower.project(features, normed)


class ClipTexts:
    """The text tower and the projections of a CLIP checkpoint, in float32.

    Args:
        folder: of the checkpoint, with safetensors and a tokenizer.
        vision: the vision tower of the model, which must be that of the checkpoint.

    Raises:
        UserError: the folder holds no such checkpoint, or one with another vision tower.
    """

    def __init__(self, folder: str, vision: Any) -> None:
        from transformers import AutoConfig, AutoTokenizer, CLIPModel

        from uniprune.modeling.checkpoints import checkpoint_files  # needs pydantic

        path = Path(folder).expanduser()
        if not (path / "config.json").is_file():
            raise UserError(
                f"text_checkpoint {folder!r} is no folder with a config.json; give that of the CLIP model, saved as "
                "safetensors, from which the vision tower was taken (openai/clip-vit-large-patch14-336 of LLaVA-1.5)"
            )
        checkpoint_files(path)  # refuses what leads out of the folder
        kind = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False).model_type
        if kind != "clip":
            raise UserError(f"text_checkpoint {folder!r} holds a model of type {kind!r}; expected a whole CLIP model")
        try:
            model = CLIPModel.from_pretrained(path, use_safetensors=True, local_files_only=True, dtype=torch.float32)
            self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"text_checkpoint {folder!r} cannot be loaded ({error}); expected a CLIP model with safetensors and "
                "its tokenizer"
            ) from error
        _check_same(folder, model.vision_model.state_dict(), vision.state_dict())
        self._device = next(vision.parameters()).device
        self._longest = model.config.text_config.max_position_embeddings
        parts = (model.text_model, model.text_projection, model.visual_projection, model.vision_model.post_layernorm)
        self._text, self._words, self._patches, self._norm = (part.eval().to(self._device) for part in parts)

    @torch.no_grad()
    def read(self, question: str) -> QuestionText:
        """Encode a question; what is longer than the text tower's positions is cut, as released."""
        limits: dict[str, Any] = {"truncation": True, "max_length": self._longest, "return_tensors": "pt"}
        inputs = self._tokenizer(_IMAGE.sub(" ", question), **limits).to(self._device)
        found = self._text(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        return QuestionText(self._words(found.last_hidden_state[0]), self._words(found.pooler_output[0]), self)

    @torch.no_grad()
    def project(self, features: Tensor, normed: bool) -> Tensor:
        """Return [..., E] of the tower's features [..., C], through its last norm first if `normed`."""
        own = features.to(self._device, torch.float32)
        projected: Tensor = self._patches(self._norm(own) if normed else own)
        return projected.to(features)


def _check_same(folder: str, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint whose vision tower, rounded to the model's precision, is not the model's."""
    for name, own in ours.items():
        other = theirs.get(name)
        if other is None or other.shape != own.shape or not torch.equal(other.to(own.dtype), own.cpu()):
            raise UserError(
                f"text_checkpoint {folder!r} has another vision tower than the model ({name} differs), so its text "
                "tower does not belong to the model's images; give the CLIP model from which the tower was taken, "
                "unchanged, or compare with the language model's embeddings (text=llm)"
            )


class TextTowers:
    """Part of `ModelAdapter` that has the text tower of its vision tower, from another checkpoint."""

    vision: Any

    @property
    def has_texts(self) -> bool:
        """Return whether the vision tower is one that was trained with a text tower."""
        return getattr(self.vision.config, "model_type", None) == CLIP_TOWER

    def text_tower(self, folder: str) -> ClipTexts:
        """Return the text tower in a folder, loaded once.

        Raises:
            UserError: see `ClipTexts`.
        """
        loaded: dict[str, ClipTexts] = self.__dict__.setdefault("_text_towers", {})
        if folder not in loaded:
            loaded[folder] = ClipTexts(folder, self.vision)
        return loaded[folder]
