"""A prefill from the moment the decoder is about to run: what survives each stage, and what decoding needs to know."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from uniprune.engine.attended_pairs import AttendedPairs
from uniprune.engine.attention import AttentionCapture
from uniprune.engine.checks import check_undrawn, undisturbed
from uniprune.engine.compaction import CacheState, evict, following, held_layers, remember, take
from uniprune.engine.decisions import Choices
from uniprune.engine.deepstack import FEATURES, PLACES, Deepstack
from uniprune.engine.device_tokens import DeviceTokens
from uniprune.engine.dropping import decide, dropped_on_device, dropped_on_host
from uniprune.engine.forward import Forward
from uniprune.engine.host_copy import sent
from uniprune.engine.kept_tokens import KeptTokens, renumbered
from uniprune.engine.last_tokens import for_last
from uniprune.engine.layer_kinds import check_marked, gathered_arguments
from uniprune.engine.looks import Looks
from uniprune.engine.preparation import Preparation
from uniprune.engine.report import PrefillReport
from uniprune.engine.served_positions import vllm_positions
from uniprune.engine.stage_groups import StageInput
from uniprune.engine.token_map import PrefillInputs, rows_per_prompt
from uniprune.engine.token_rows import Move, gathered_rows, origins
from uniprune.engine.tower_stage import decided_in_tower
from uniprune.engine.vision import Vision
from uniprune.modeling.adapter import ModelAdapter
from uniprune.pruning.base import Pruner, Stage
from uniprune.pruning.looks import Look


class Prefill(Forward):
    """One forward on an empty cache. Complete when constructed; layers append to `widths` and `kept`.

    Args:
        adapter: the model's adapter.
        pruner: the method.
        stages: its pruning points, in order.
        inputs: the forward's prompts, ids and mask.
        embeds: [B, L, D] inputs of the language model.
        position_ids: [..., B or 1, L], None for 0, 1, …
        vision: the tower's call of the images; None if unknown.
        method_time: opens the timer's method span.
        prepared: what was made while the tower ran; used if that was the call `vision`.

    Attributes:
        layers: decoder layers whose `before_layer` is needed; the first one when nothing can be pruned.
        batch: the prompts.
        widths: columns that entered each of `layers` so far.
        kept: the tokens that each stage that pruned has left so far.

    Raises:
        UserError: the number of infos does not fit the batch.
        UnsupportedError: an argument is missing by which the model finds blocks of two-way attention.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        pruner: Pruner,
        stages: tuple[Stage, ...],
        inputs: PrefillInputs,
        embeds: Tensor,
        position_ids: Tensor | None,
        vision: Vision | None,
        method_time: Callable[[], AbstractContextManager[None]],
        prepared: Preparation | None = None,
    ) -> None:
        idle = not inputs.prunable(stages)
        if not idle:
            check_marked(inputs)
        self.layers = range(1 if idle else len(adapter.layers))
        self.widths: list[int] = []
        self.kept: list[KeptTokens] = []
        self._adapter, self._pruner, self._method_time = adapter, pruner, method_time
        self._scheduled, self._stages = stages, () if idle else stages
        self._embeds, self._vision = embeds, vision
        self._next_position = following(position_ids, embeds)
        self._captured: AttentionCapture | None = None
        self._deepstack: Deepstack | None = None
        self._kinds, self._reusing = adapter.kinds, adapter.reusing
        self._arguments: dict[tuple[int, str], dict[str, Any]] = {}  # by number of stages so far and kind of layer
        self._cache: Any = None
        self._moves: list[Move] = []
        self._rotary_rows: Tensor  # [B, n] rows of the un-pruned rotary tables, from the first stage that prunes on
        self._shift: Tensor | None = None
        self._position_ids = position_ids
        self._served: Tensor | None = None  # [3, B, n] position ids, if they are vLLM's
        self._unchecked: list[Choices] = []
        self._left: DeviceTokens | None = None  # None until something was pruned
        self._placed: Tensor | None = None  # see `_origins`
        if prepared is None or prepared.vision is not vision:
            prepared = Preparation.of(adapter, pruner, inputs, vision, rows_per_prompt(inputs, embeds), idle)
        self.batch, self._random, self._counted = prepared.batch, prepared.random, prepared.pairs
        self._looks = Looks(self._stages if self._stages and self.has_images else ())

    @property
    def has_images(self) -> bool:
        """Return whether there is anything to prune."""
        return self.batch.has_images

    def before_decoder(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the decoder's arguments; without deepstack features, which `before_layer` adds, if tokens may go."""
        features = arguments.get(FEATURES)
        if features is None or not self._stages:
            return arguments
        self._deepstack = Deepstack(features, self.batch.tokens.visual)
        return arguments | {PLACES: None, FEATURES: None}

    # --- before each layer --------------------------------------------------------------------------------------
    def before_attention(self, layer: int, module: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        """Capture the attention of the layer before a stage, for its method."""
        cos, sin = kwargs["position_embeddings"]
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        self._captured = AttentionCapture(module, layer, hidden, cos, sin, cache, mask)

    def before_look(self, look: Look, entering: Tensor) -> None:
        """Hold what enters a part of a layer that a method looks at."""
        if look in self._looks:
            self._looks.before(look, entering)

    def after_look(self, look: Look, leaving: Tensor) -> None:
        """Have methods look at what leaves it."""
        if look in self._looks:
            with self._method_time():
                self._looks.after(look, leaving, self._current, self._moves)

    def before_layer(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]] | None:
        """Run the layer's stage, if any; return hidden states [B, n, D] and arguments once something was pruned."""
        self._cache, given = kwargs.get("past_key_values"), hidden
        if self._deepstack is not None:
            now, device = self._current, hidden.device
            hidden = self._deepstack.added(layer, hidden, self._origins(device), now.valid(device))
        self.after_look(Look(layer - 1), hidden)
        for stage in self._stages:
            if stage.layer == layer and self.has_images:
                with self._method_time():
                    hidden = self._run_stage(stage, hidden, kwargs)
        self.before_look(Look(layer), hidden)
        # A layer that reuses keys attends to all that are left, also if it runs on the last token only.
        self.widths.append(self._current.kept.width if layer in self._reusing else hidden.shape[1])
        self._entering = hidden.shape[1]
        changed = self._layer_arguments(layer, hidden, kwargs) if self.kept else {}
        return (hidden, changed) if changed or hidden is not given else None

    def further_inputs(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the rows of the tokens that are left."""
        if not inputs or not self.kept:
            return inputs
        device = next((one.device for one in inputs if isinstance(one, Tensor)), self._embeds.device)
        return gathered_rows(inputs, self._origins(device), self._embeds.shape[1], self._entering)

    @cached_property
    def _unpruned(self) -> DeviceTokens:
        return DeviceTokens(self.batch.tokens.unpruned, self._embeds.shape[1], unpruned=True)

    @property
    def _current(self) -> DeviceTokens:
        """The tokens that are left so far."""
        return self._left or self._unpruned

    def _origins(self, device: torch.device) -> Tensor:
        """Return [B, n] the un-pruned positions of the tokens that are left, wherever they are placed."""
        if self._placed is None or self._placed.device != device:
            self._placed = origins(self._current.index(device), self._embeds.shape[1], self._moves)
        return self._placed

    def _run_stage(self, stage: Stage, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """Decide for every prompt; unless all keep everything, compact `hidden` and the layer arguments."""
        now = self._current
        upcoming = self._upcoming(stage.layer, hidden, kwargs) if stage.pruner.upcoming_attention else None
        seen = self._looks.seen(stage, self._moves)
        given = (stage, self._adapter, hidden, now, self._embeds, self._vision, self._captured, upcoming, seen)
        arriving = StageInput(*given, tuple(self._moves))
        self._captured = None
        prompts = self.batch.prompts
        try:
            with undisturbed(stage):
                decided = (decide if stage.block is None else decided_in_tower)(arriving, prompts)
        except Exception:
            self._check()  # an earlier impossible choice may be the cause
            raise
        if stage.pruner.exact and stage.block is None:
            drop = dropped_on_device
        else:
            self._check()
            drop = dropped_on_host
        dropped = drop(arriving, decided, prompts, self.batch.copies)
        if dropped is None:
            return hidden
        self._unchecked += [] if dropped.choices is None else [dropped.choices]
        self._moves += dropped.moves
        self._left, self._placed = dropped.now, None
        self.kept.append(dropped.now.kept)
        self._rotary_rows = dropped.now.index(hidden.device)
        if self._pruner.positions == "compact":
            rows, shift = renumbered(dropped.now.kept, self.batch.tokens.real.numpy())
            self._rotary_rows, self._shift = sent(rows, hidden.device), sent(shift, self._embeds.device)
        elif self._pruner.positions == "vllm":
            own = self._position_ids, self._next_position, dropped.now.index(self._embeds.device)
            self._served, self._shift = vllm_positions(self._adapter.text_after(), self.batch.tokens, *own)
        return take(dropped.hidden, dropped.columns)

    def _check(self) -> None:
        """Refuse impossible values of the choices that were made so far; waits for them."""
        unchecked, self._unchecked = self._unchecked, []
        for choices in unchecked:
            choices.check()

    def _upcoming(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> AttentionCapture:
        """Return the inputs that the attention of `layer` would have if it ran on `hidden`."""
        module = self._adapter.layers[layer]
        normalised = module.input_layernorm(hidden)  # may bring it to the device of this layer
        given = kwargs | (self._layer_arguments(layer, hidden, kwargs) if self.kept else {})
        cos, sin = (table.to(normalised.device) for table in given["position_embeddings"])
        return AttentionCapture(module.self_attn, layer, normalised, cos, sin, None, given.get("attention_mask"))

    def _layer_arguments(self, layer: int, hidden: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the changed arguments of `layer`; it is called with masks and rotary tables of the un-pruned prompt.

        Layers of one kind share theirs from one stage to the next.
        """
        key = len(self.kept), self._kinds[layer]
        if key not in self._arguments:
            with self._method_time():
                self._arguments[key] = self._gathered(layer, hidden, kwargs, self._current)
        arguments = self._arguments[key]
        return arguments if layer not in self._reusing else for_last(arguments, hidden.shape[1])

    def _gathered(self, layer: int, hidden: Tensor, kwargs: dict[str, Any], now: DeviceTokens) -> dict[str, Any]:
        """Return the arguments of `layer` for the tokens that are left."""
        tokens = self.batch.tokens
        arguments = gathered_arguments(self._adapter, layer, hidden, kwargs, now, self._rotary_rows, tokens)
        if self._served is not None:
            own = self._adapter.decoder.rotary_emb(hidden, self._served.to(hidden.device))
            arguments["position_embeddings"] = own
        return arguments

    # --- at the end ---------------------------------------------------------------------------------------------
    def after_model(self) -> PrefillReport:
        """Store the stages on the cache for decoding, and return the report.

        Raises:
            PruningError: the method drew from a global random generator, or chose what it cannot.
        """
        with self._method_time():
            if self._stages:
                check_undrawn(self._pruner, self._random)
            self._check()
            cached = self.kept
            if self._cache is not None:
                first = self._pruner.evict_from(len(self._adapter.layers))
                if self.kept and first is not None:
                    cached = evict(self._cache, first, self.kept, self.batch.tokens.unpruned)
                length = self._embeds.shape[1]
                remember(self._cache, CacheState(tuple(cached), length, self._next_position, self._shift))
            # If only the first layer was hooked, what entered it entered them all.
            widths = self.widths * (len(self._adapter.layers) if len(self.layers) == 1 else 1)
            layers = tuple(stage.layer for stage in self._scheduled)
            held = held_layers(self._cache)
            return PrefillReport(self.batch, layers, widths, self.kept, cached, held, self._pairs, self._next_position)

    @property
    def _pairs(self) -> AttendedPairs:
        return self._counted or AttendedPairs.of(self._adapter, self.batch.inputs)
