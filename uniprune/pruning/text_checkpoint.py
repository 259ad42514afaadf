"""The checkpoint of a text tower that a method reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uniprune.pruning.base import Pruner


def text_checkpoint(pruner: Pruner) -> str | None:
    """Return the folder of the CLIP model whose text tower a method reads, from its field of this name, if any."""
    folder: str | None = getattr(pruner, "text_checkpoint", None)
    return folder
