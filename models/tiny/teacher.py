"""A tiny model trained before: its language model is a start for another, its visual tokens can be imitated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from .build import FAMILIES
from .vision import VISION


class Teacher:
    """A trained model of any family, read from its folder."""

    def __init__(self, folder: Path, device: str) -> None:
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).to(device)
        kind = self.model.config.model_type
        self.family = next(name for name in FAMILIES if name.replace(".", "_").replace("-", "_") == kind)

    @torch.no_grad()
    def tokens(self, pixels: Tensor) -> Tensor:
        """Compute the projected visual tokens [B, N, D] of images [B, 3, SIZE, SIZE]."""
        return VISION[self.family](self.model, pixels).tokens

    def start(self, model: Any) -> None:
        """Copy the language model into `model`; what this one lacks starts without effect.

        Biases and the features for the first decoder layers start at zero, the norms of queries and keys at one. Biases
        that `model` has no place for are left out.
        """
        target = model.get_decoder()
        missing, unexpected = target.load_state_dict(self.model.get_decoder().state_dict(), strict=False)
        lacking = ("bias", "q_norm.weight", "k_norm.weight")
        different = [name for name in missing if not name.endswith(lacking)]
        different += [name for name in unexpected if not name.endswith("bias")]
        if different:
            folder = self.model.name_or_path
            raise SystemExit(f"{folder} holds another language model; parameters that do not match: {different[:5]}")
        for name in missing:
            parameter = target.get_parameter(name)
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.ones_(parameter)
        for name, parameter in model.named_parameters():
            if "deepstack_merger_list" in name and "linear_fc2" in name:
                nn.init.zeros_(parameter)

    @torch.no_grad()
    def scale(self, model: Any, family: str, pixels: Tensor) -> None:
        """Scale the last layer of a Qwen3-VL's merger, so that its visual tokens are as large as the teacher's."""
        own = VISION[family](model, pixels).tokens
        model.model.visual.merger.linear_fc2.weight.mul_(self.tokens(pixels).std() / own.std())
