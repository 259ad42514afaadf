"""What the engine must know of a model family: where its parts are and how to talk to it.

One subclass per family in `models/`.

A family is registered under the Hugging Face `config.model_type` it serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uniprune.errors import UnsupportedError
from uniprune.view import Grid


class Family:
    """Layout of one loaded model. Subclasses describe the vision side; the decoder side is shared.

    Attributes:
        model: the Hugging Face model. base: `model.base_model`. decoder: the language model. layers: its layers.
        vision: vision tower module. projector: module between tower and language model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.base = model.base_model
        self.decoder: Any = model.get_decoder()  # type: ignore[operator]  # PreTrainedModel's, torch types it as Tensor
        self.layers: Sequence[nn.Module] = self.decoder.layers

    # --- to be written per family -------------------------------------------------------------------------------
    vision: nn.Module
    projector: nn.Module

    def vision_attentions(self) -> list[nn.Module]:
        """Self-attention modules of the tower, in order (the engine taps their inputs)."""
        raise NotImplementedError

    def grids(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Grid]:
        """(t, h, w) in LLM tokens of every image (or tile) in one call of the vision tower."""
        raise NotImplementedError

    def vision_qk(self, tap: Any) -> Any:
        """Query and key projections of a tapped tower attention; see uniprune/engine/attention.py."""
        raise NotImplementedError

    # --- shared -------------------------------------------------------------------------------------------------
    @property
    def visual_token_ids(self) -> list[int]:
        """Placeholder ids of images (and videos) in `input_ids`."""
        config = self.model.config
        ids = (getattr(config, name, None) for name in ("image_token_id", "video_token_id"))
        return [i for i in ids if i is not None]

    def is_compiled(self) -> bool:
        """Whether the model was wrapped by torch.compile, which ignores hooks added later."""
        return hasattr(self.model, "_orig_mod") or getattr(self.model, "_compiled_call_impl", None) is not None


__all__ = ["Family", "Tensor", "UnsupportedError", "torch"]
