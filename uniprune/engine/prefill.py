"""One prefill from the first hook to the last: what survives each stage, and what to remember of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from uniprune.engine.attention import DecoderTap
from uniprune.engine.eviction import evict
from uniprune.engine.host import Tokens, to_device
from uniprune.engine.images import image_units, repeated_rows, scoped
from uniprune.engine.prompt import Arriving, Prompt, Sample
from uniprune.engine.report import PrefillReport, RowReport
from uniprune.engine.stages import pack, renumbered, replace_tokens, take
from uniprune.engine.state import CacheState, Kept, active, causal_mask, remember, token_bytes
from uniprune.engine.views import settle
from uniprune.engine.vision import Vision
from uniprune.errors import UserError
from uniprune.family import Family
from uniprune.pruner import Pruner, Stage


class Prefill:
    """One forward on an empty cache.

    Args:
        family: the model's layout. pruner, stages: the method and its pruning points by layer.
        samples: one per prompt, or none. tokens: the batch. method_time: opens the timer's method span.

    Attributes:
        tap: what the attention before the next stage saw.
    """

    def __init__(
        self,
        family: Family,
        pruner: Pruner,
        stages: dict[int, Stage],
        samples: tuple[Sample, ...],
        tokens: Tokens,
        method_time: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.family, self.pruner, self.stages, self.samples = family, pruner, stages, samples
        self.tokens, self.method_time = tokens, method_time
        self.layers = range(len(family.layers))
        self.tap: DecoderTap | None = None
        self._visual_counts: list[int] = tokens.visual.sum(1).tolist()
        batch, width = tokens.visual.shape
        everything = torch.arange(width).repeat(batch, 1)
        self._whole = Kept(0, everything, tokens.real, tuple(tokens.real.sum(1).tolist()))
        self._stages: list[Kept] = []
        self._widths: list[int] = []
        self._arguments: dict[str, Any] | None = None
        self._cache: Any = None
        self._shift: Tensor | None = None

    @property
    def has_images(self) -> bool:
        """Whether there is anything to prune."""
        return any(self._visual_counts)

    def start(self, embeds: Tensor, position_ids: Tensor | None, vision: Vision | None) -> None:
        """The language model is about to run on `embeds` [B, L, D]; by now the vision tower has.

        `position_ids` are [..., B or 1, L]; `vision` is the tower call behind the image features, None if unknown.
        """
        batch, length = self.tokens.visual.shape
        self._position_ids = torch.arange(length, device=embeds.device)[None] if position_ids is None else position_ids
        self._copies = self._rows_per_prompt(embeds)
        samples = self.samples or tuple(Sample(str(i)) for i in range(batch // self._copies))
        grids = None if vision is None else vision.grids
        pictures = None
        if self.has_images:
            pictures = self.family.pictures(
                grids, lambda: vision.projected if vision else None, lambda columns: self._held(embeds[..., columns])
            )
        units = image_units(self.tokens.visual, pictures, self.family.tiled)
        self._tower = None if grids is None else tuple(grids)
        self._prompts = [
            Prompt(self.family, sample, row, scoped(units[row], self.pruner.scope, grids), self.tokens, embeds, vision)
            for row, sample in zip(range(0, batch, self._copies), samples, strict=True)
        ]

    def _held(self, embeds: Tensor) -> Tensor:
        """[P, D] what the placeholders of all rows hold."""
        rows, columns = (to_device(where, embeds.device) for where in self.tokens.visual.nonzero(as_tuple=True))
        return embeds[rows, columns]

    def _rows_per_prompt(self, embeds: Tensor) -> int:
        """1, or the number of beams or returned sequences, which are decided about once."""
        batch = len(embeds)
        if not self.samples:
            return repeated_rows(embeds) if batch > 1 and self.has_images else 1
        copies, rest = divmod(batch, len(self.samples))
        if rest or not copies:
            raise UserError(
                f"session.samples has {len(self.samples)} entries for a batch of {batch} rows; "
                "set one Sample per prompt"
            )
        return copies

    def before_layer(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]] | None:
        """Hidden states [B, n, D] and changed arguments of a layer; None while nothing has been pruned."""
        self._cache = kwargs.get("past_key_values")
        if layer in self.stages and self.has_images:
            with self.method_time():
                hidden = self._run_stage(self.stages[layer], hidden, kwargs)
        self._widths.append(hidden.shape[1])
        return None if self._arguments is None else (hidden, self._arguments)

    def _run_stage(self, stage: Stage, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Let every prompt decide; unless all keep everything, compact `hidden` and the layer arguments."""
        now = self._stages[-1] if self._stages else self._whole
        upcoming = self._upcoming(stage.layer, hidden, now, kwargs) if stage.pruner.upcoming_attention else None
        arriving = Arriving(hidden, now, self.tap, upcoming)
        asked = [prompt.ask(stage, arriving) for prompt in self._prompts]
        self.tap = None
        answers = iter(settle(list(chain.from_iterable(asked))))
        chosen = [list(islice(answers, len(own))) for own in asked]
        new = [prompt.keep(stage, own) for prompt, own in zip(self._prompts, chosen, strict=True)]
        if not any(asked):
            return hidden
        copies = [b // self._copies for b in range(len(hidden))]
        columns = [now.columns(self._prompts[copy].survivors, b) for b, copy in enumerate(copies)]
        if not any(new) and tuple(map(len, columns)) == now.lengths:
            return hidden
        replaced = [(b, now.columns(at, b), tokens) for b, copy in enumerate(copies) for at, tokens in new[copy]]
        hidden = replace_tokens(hidden, replaced)
        kept, gathered = pack(stage.layer, columns, now.index)
        hidden = take(hidden, gathered)
        self._stages.append(kept)
        self._arguments = self._layer_arguments(kept, hidden, kwargs["position_embeddings"])
        return hidden

    def _upcoming(self, layer: int, hidden: Tensor, now: Kept, kwargs: dict[str, Any]) -> DecoderTap:
        """What the attention of `layer` would see if it ran on `hidden` as it arrives."""
        module = self.family.layers[layer]
        normalised = module.input_layernorm(hidden)  # may bring it to the device of this layer
        cos, sin = (take(table, now.index).to(normalised.device) for table in kwargs["position_embeddings"])
        return DecoderTap(module.self_attn, layer, normalised, cos, sin, cache=None)

    def _layer_arguments(self, kept: Kept, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """What every layer from this stage on is called with; `rotary` are the tables of the whole prompt."""
        rows = kept.index
        if self.pruner.positions == "compact":
            rows, shift = renumbered(kept, self.tokens.real)
            self._shift = to_device(shift, self._position_ids.device)
        valid = to_device(kept.valid, hidden.device) if kept.padded else None
        return {
            "position_embeddings": tuple(take(table, rows) for table in rotary),
            "attention_mask": causal_mask(self.family.decoder.config, hidden, valid, self._cache, kept.layer),
            "position_ids": None,
        }

    def finish(self) -> PrefillReport:
        """The forward succeeded: remember the stages on the cache, report what happened."""
        with self.method_time():
            stages = self._stages
            if stages and self._cache is not None:
                position = self._position_ids[..., -1:] + 1
                first = self.pruner.evict_from(len(self.family.layers))
                if first is not None:
                    stages = evict(self._cache, first, stages, self._whole)
                length = self.tokens.visual.shape[1]
                remember(self._cache, CacheState(tuple(stages), length, position, self._shift))
            sizes = token_bytes(self._cache)
            rows = tuple(self._row_report(prompt, stages, sizes) for prompt in self._prompts)
            return PrefillReport(rows, bool(self._stages))

    def _row_report(self, prompt: Prompt, cached: list[Kept], sizes: list[int] | None) -> RowReport:
        """`cached`: the stages as the KV cache holds them. `sizes`: bytes of a token in each of its layers."""
        row = prompt.row
        text = self._whole.lengths[row] - self._visual_counts[row]
        initial = sum(len(unit.ranks) for unit in prompt.units)
        marked = initial < self._visual_counts[row]
        entering, markers = [], []
        for layer, width in enumerate(self._widths):
            kept = active(self._stages, layer) or self._whole
            left = kept.index[row, kept.valid[row]] if marked else None
            markers.append(0 if left is None else int(torch.isin(left, prompt.markers).sum()))
            entering.append(width - (kept.index.shape[1] - kept.lengths[row]) - text - markers[-1])
        held = None
        if sizes is not None:
            held = sum(size * (active(cached, k) or self._whole).lengths[row] for k, size in enumerate(sizes))
        units, stages = tuple(prompt.units), tuple(prompt.reports)
        return RowReport(prompt.sample.id, initial, entering, markers, units, self._tower, stages, text, held)
