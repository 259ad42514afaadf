"""Ids, mask and visual placeholders of a batch, from the arguments of a forward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.host_copy import to_host
from uniprune.engine.kept_tokens import Bools, Ints, KeptTokens, Known
from uniprune.engine.question import PromptInfo
from uniprune.errors import UnsupportedError, UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Stage

PIXELS = ("pixel_values", "pixel_values_videos")
"""Arguments of a forward that carry images or videos."""


@dataclass(frozen=True)
class Tokens:
    """A batch's un-pruned sequences, on the CPU.

    Attributes:
        ids: [B, L] input ids, None for prompts given as embeddings.
        visual: [B, L] True at visual placeholders.
        real: [B, L] False at padding.
    """

    ids: Tensor | None
    visual: Tensor
    real: Tensor

    @cached_property
    def visual_counts(self) -> list[int]:
        """Visual placeholders of every row."""
        counts: list[int] = self.visual.numpy().sum(1).tolist()
        return counts

    @property
    def may_repeat(self) -> bool:
        """Return whether neighbouring rows have the same ids, as copies of a prompt have; True if ids are unknown."""
        if self.ids is None:
            return True
        ids = self.ids.numpy()
        return bool((ids[1:] == ids[:-1]).all(1).any())

    @cached_property
    def end(self) -> int:
        """The column after the last token of any row."""
        return int(np.flatnonzero(self.real.numpy().any(0))[-1]) + 1

    @cached_property
    def unpruned(self) -> KeptTokens:
        """All columns, padding included."""
        real: Bools = self.real.numpy()
        index = np.broadcast_to(np.arange(real.shape[1]), real.shape)
        return KeptTokens(0, tuple(real.sum(1).tolist()), real.shape[1], real, Known(index))


def visual_inputs(kwargs: dict[str, Any]) -> list[str]:
    """Return the names of the visual inputs a forward carries: pixels, or features encoded before it."""
    encoded = [name for name, output in (kwargs.get("mm_encoder_outputs") or {}).items() if output is not None]
    return encoded + [name for name in PIXELS if kwargs.get(name) is not None]


def placeholders(adapter: ModelAdapter, kwargs: dict[str, Any]) -> Tensor:
    """Return [B, L], True at image and video placeholders, on the device of the forward's inputs."""
    if kwargs.get("input_ids") is not None:
        found: Tensor = marked(kwargs["input_ids"], adapter.visual_token_ids)
        return found
    embeds: Tensor = kwargs["inputs_embeds"]
    table: Tensor = adapter.model.get_input_embeddings().weight
    return (embeds.unsqueeze(2) == table[adapter.visual_token_ids].to(embeds.device)).all(-1).any(-1)


def marked(ids: Any, wanted: Sequence[int]) -> Any:
    """Return True where `ids`, a tensor or an array, are among a few `wanted` ones."""
    return reduce(or_, [ids == one for one in wanted])


def valid_tokens(mask: Any, length: int) -> Tensor | None:
    """Return [B or 1, L], False (or 0) at padding, from any form of attention mask; None without one."""
    if isinstance(mask, dict):  # one per kind of layer; None where there is no padding
        mask = next((one for one in mask.values() if one is not None), None)
    if mask is None or mask.dim() == 2:
        valid: Tensor | None = mask
        return valid
    # Already built (static cache): in any kind of layer, exactly the valid tokens attend to themselves.
    itself: Tensor = mask[:, 0].diagonal(dim1=-2, dim2=-1)[:, :length]
    return itself.clone() if itself.dtype == torch.bool else itself == 0


class PrefillInputs:
    """Ids, mask and kind of visual input of a forward on an empty cache; holds nothing else of it.

    Args:
        adapter: the model's adapter.
        infos: identities of the prompts, or none.
        kwargs: arguments of the forward.

    Attributes:
        infos: as given.
        has_visual: whether the forward carries images or videos.
        wanted: number of last tokens whose states the model was asked for, if it was.
        missing: names of arguments that describe the ids and on which two-way attention depends, if not passed.
        mixed: whether it carries both.

    Raises:
        UnsupportedError: it carries both, and the family does not place them by ids of their own.
    """

    def __init__(self, adapter: ModelAdapter, infos: tuple[PromptInfo, ...], kwargs: dict[str, Any]) -> None:
        carried = visual_inputs(kwargs)
        self.infos, self.has_visual, self.mixed = infos, bool(carried), len(carried) > 1
        if self.mixed and not adapter.mixes:
            raise UnsupportedError(
                f"images and videos in one prompt are not supported with {type(adapter).__name__}; pass one kind of "
                "visual input"
            )
        self.wanted = kwargs.get("logits_to_keep")
        described = adapter.id_arguments(torch.zeros(1, 1, dtype=torch.long)) if adapter.block_kinds else {}
        self.missing = [name for name in described if kwargs.get(name) is None]
        self._has_ids = kwargs.get("input_ids") is not None
        self._first = kwargs["input_ids"] if self._has_ids else placeholders(adapter, kwargs)
        self._mask = valid_tokens(kwargs.get("attention_mask"), self._first.shape[1])
        self._visual_ids = adapter.visual_token_ids

    def prunable(self, stages: Iterable[Stage]) -> bool:
        """Return whether stages find anything to prune."""
        return self.has_visual and not all(stage.keeps_all for stage in stages)

    def fetch(self) -> None:
        """Copy ids and mask to the CPU now: behind the vision tower, the copy would wait for all of its work."""
        _ = self._fetched

    @cached_property
    def _fetched(self) -> list[Ints]:
        """Ids or placeholders, and the mask if there is one."""
        return to_host([self._first] if self._mask is None else [self._first, self._mask])

    @cached_property
    def tokens(self) -> Tokens:
        """The batch's tokens, copied to the CPU on first use: a prefill that cannot prune costs no transfer."""
        first, *masks = self._fetched
        del self._fetched
        visual: Bools = marked(first, self._visual_ids) if self._has_ids else first.astype(np.bool_)
        if not self.has_visual:  # a model can *generate* the image id: without image inputs it is text
            visual = np.zeros_like(visual)
        real = np.broadcast_to(masks[0].astype(np.bool_), visual.shape).copy() if masks else np.ones_like(visual)
        return Tokens(torch.from_numpy(first) if self._has_ids else None, *map(torch.from_numpy, (visual, real)))


def repeated_rows(embeds: Tensor) -> int:
    """Return how many copies of each prompt follow one another in `embeds` [B, L, D], as beams and samples do.

    Equal inputs must get equal decisions in any case; the tolerance covers images encoded once per copy.
    """
    batch = embeds.shape[0]
    near = torch.isclose(embeds[1:], embeds[:-1], rtol=1e-3, atol=1e-5).flatten(1).all(1)
    same = [False, *near.tolist()]
    fits = (k for k in range(batch, 0, -1) if batch % k == 0 and all(same[b] for b in range(batch) if b % k))
    return next(fits)


def rows_per_prompt(inputs: PrefillInputs, embeds: Tensor) -> int:
    """Return 1, or the number of beams or returned sequences of each prompt in `embeds` [B, L, D].

    Raises:
        UserError: the number of infos does not fit the batch.
    """
    known = known_copies(inputs, len(embeds))
    return repeated_rows(embeds) if known is None else known


def known_copies(inputs: PrefillInputs, batch: int) -> int | None:
    """Return the same for a batch of so many rows, without embeddings; None if only these can tell.

    Raises:
        UserError: the number of infos does not fit the batch.
    """
    prompts = len(inputs.infos)
    if not prompts:
        repeats = batch > 1 and any(inputs.tokens.visual_counts) and inputs.tokens.may_repeat
        return None if repeats else 1
    copies, rest = divmod(batch, prompts)
    if rest or not copies:
        raise UserError(
            f"session.samples has {prompts} entries for a batch of {batch} rows; set one PromptInfo per prompt"
        )
    return copies
