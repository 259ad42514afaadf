"""Methods under test on prompts of videos, for conformance checks."""

from __future__ import annotations

import torch

from uniprune.conformance import MethodUnderTest
from uniprune.modeling.tiny import TinyPrompt


class OnVideos(MethodUnderTest):
    """One method on one family whose prompts show a video where they otherwise show an image."""

    def prompt(self, name: str, images: int = 1, extra: int = 0) -> TinyPrompt:
        """A prompt whose content follows from its name; `extra` words make it longer."""
        generator = torch.Generator().manual_seed(sum(name.encode()))
        return self.tiny.prompt(generator, before=4 + extra, question=6 + extra // 2, name=name, clips=images)
