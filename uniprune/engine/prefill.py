"""One prefill from the first hook to the last: what survives each stage, and what to remember of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.attention import AttentionCapture
from uniprune.engine.cache import CacheState, KeptTokens, causal_mask, remember, token_bytes
from uniprune.engine.compaction import evict, pack, reader, renumbered, replace_tokens, take, to_device, visual_inputs
from uniprune.engine.ledger import Ledger
from uniprune.engine.prompt import PromptInfo, StageInput
from uniprune.engine.report import PrefillReport
from uniprune.engine.token_map import repeated_rows
from uniprune.engine.views import settle
from uniprune.engine.vision import Vision
from uniprune.errors import UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Pruner, Stage


class Prefill:
    """One forward on an empty cache.

    Args:
        family: the model's layout. pruner, stages: the method and its pruning points by layer.
        samples: one per prompt, or none. inputs: arguments of the forward. method_time: opens the timer's method span.

    Attributes:
        layers: decoder layers to be called before; the first one when nothing can be pruned.
        tap: what the attention before the next stage saw.
        ledger: what the batch consists of and what survives.

    Raises:
        UnsupportedError: the forward carries images and videos.
    """

    def __init__(
        self,
        family: ModelAdapter,
        pruner: Pruner,
        stages: dict[int, Stage],
        samples: tuple[PromptInfo, ...],
        inputs: dict[str, Any],
        method_time: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.family, self.pruner, self.method_time = family, pruner, method_time
        self.tap: AttentionCapture | None = None
        self.ledger = Ledger(family.tiled, pruner, tuple(stages.values()), samples, reader(family, inputs))
        self._carries = bool(visual_inputs(inputs))
        idle = not self._carries or all(stage.keeps_all for stage in stages.values())
        self._stages = {} if idle else stages
        self.layers = range(1 if idle else len(family.layers))
        self._arguments: dict[str, Any] | None = None
        self._cache: Any = None
        self._shift: Tensor | None = None

    @property
    def has_images(self) -> bool:
        """Whether there is anything to prune."""
        return self.ledger.has_images

    def start(self, embeds: Tensor, position_ids: Tensor | None, vision: Vision | None) -> None:
        """The language model is about to run on `embeds` [B, L, D]; by now the vision tower has.

        `position_ids` are [..., B or 1, L]; `vision` is the tower call behind the image features, None if unknown.
        """
        self._embeds, self._vision = embeds, vision
        if position_ids is None:
            position_ids = torch.arange(embeds.shape[1], device=embeds.device)[None]
        self._position_ids = position_ids
        self.ledger.copies = self._rows_per_prompt(embeds)
        if self._carries:
            grids = None if vision is None else vision.grids
            self.ledger.grids = grids
            self.ledger.pictures = self.family.pictures(
                grids, lambda: vision.projected if vision else None, lambda columns: self._held(embeds[..., columns])
            )

    def _held(self, embeds: Tensor) -> Tensor:
        """[P, D] what the placeholders of all rows hold."""
        rows, columns = (to_device(x, embeds.device) for x in self.ledger.tokens.visual.nonzero(as_tuple=True))
        return embeds[rows, columns]

    def _rows_per_prompt(self, embeds: Tensor) -> int:
        """1, or the number of beams or returned sequences, which are decided about once."""
        batch, prompts = len(embeds), len(self.ledger.samples)
        if not prompts:
            return repeated_rows(embeds) if batch > 1 and self.has_images else 1
        copies, rest = divmod(batch, prompts)
        if rest or not copies:
            raise UserError(
                f"session.samples has {prompts} entries for a batch of {batch} rows; set one Sample per prompt"
            )
        return copies

    def before_layer(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]] | None:
        """Hidden states [B, n, D] and changed arguments of a layer; None while nothing has been pruned."""
        self._cache = kwargs.get("past_key_values")
        if layer in self._stages and self.has_images:
            with self.method_time():
                hidden = self._run_stage(self._stages[layer], hidden, kwargs)
        self.ledger.widths.append(hidden.shape[1])
        return None if self._arguments is None else (hidden, self._arguments)

    def _run_stage(self, stage: Stage, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Let every prompt decide; unless all keep everything, compact `hidden` and the layer arguments."""
        now, prompts = self.ledger.now, self.ledger.prompts
        upcoming = self._upcoming(stage.layer, hidden, now, kwargs) if stage.pruner.upcoming_attention else None
        arriving = StageInput(self.family, hidden, now, self._embeds, self._vision, self.tap, upcoming)
        asked = [prompt.ask(stage, arriving) for prompt in prompts]
        self.tap = None
        answers = iter(settle(list(chain.from_iterable(asked))))
        new = [prompt.keep(stage, islice(answers, len(own))) for prompt, own in zip(prompts, asked, strict=True)]
        rows = [b // self.ledger.copies for b in range(len(hidden))]
        columns = [now.columns(prompts[number].survivors, b) for b, number in enumerate(rows)]
        if not any(new) and tuple(map(len, columns)) == now.lengths:
            return hidden
        replaced = [(b, now.columns(at, b), tokens) for b, number in enumerate(rows) for at, tokens in new[number]]
        hidden = replace_tokens(hidden, replaced)
        kept, gathered = pack(stage.layer, columns, now.index)
        hidden = take(hidden, gathered)
        self.ledger.kept.append(kept)
        self._arguments = self._layer_arguments(kept, hidden, kwargs["position_embeddings"])
        return hidden

    def _upcoming(self, layer: int, hidden: Tensor, now: KeptTokens, kwargs: dict[str, Any]) -> AttentionCapture:
        """What the attention of `layer` would see if it ran on `hidden` as it arrives."""
        module = self.family.layers[layer]
        normalised = module.input_layernorm(hidden)  # may bring it to the device of this layer
        cos, sin = (take(table, now.index).to(normalised.device) for table in kwargs["position_embeddings"])
        return AttentionCapture(module.self_attn, layer, normalised, cos, sin, cache=None)

    def _layer_arguments(self, kept: KeptTokens, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """What every layer from this stage on is called with; `rotary` are the tables of the whole prompt."""
        rows = kept.index
        if self.pruner.positions == "compact":
            rows, shift = renumbered(kept, self.ledger.tokens.real)
            self._shift = to_device(shift, self._embeds.device)
        valid = to_device(kept.valid, hidden.device) if kept.padded else None
        return {
            "position_embeddings": tuple(take(table, rows) for table in rotary),
            "attention_mask": causal_mask(self.family.decoder.config, hidden, valid, self._cache, kept.layer),
            "position_ids": None,
        }

    def finish(self) -> PrefillReport:
        """The forward succeeded: remember the stages on the cache, report what happened."""
        with self.method_time():
            ledger = self.ledger
            ledger.cached = ledger.kept
            if ledger.kept and self._cache is not None:
                first = self.pruner.evict_from(len(self.family.layers))
                if first is not None:
                    ledger.cached = evict(self._cache, first, ledger.kept, ledger.whole)
                after, length = self._position_ids[..., -1:] + 1, ledger.whole.index.shape[1]
                remember(self._cache, CacheState(tuple(ledger.cached), length, after, self._shift))
            ledger.sizes = token_bytes(self._cache)
            if len(self.layers) == 1:  # what entered the first layer entered them all
                ledger.widths *= len(self.family.layers)
            return PrefillReport(bool(ledger.kept), ledger.rows)
