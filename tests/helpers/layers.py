"""A decoder's layers as references call them, with hand-written masks, rotary tables and inputs of each layer."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from tests.helpers.tiny import IMAGE

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
TWO_WAY = {"gemma3": (FULL, SLIDING), "gemma4": (SLIDING,)}
"""Family -> kinds of layers in which the tokens of an image see each other both ways."""


def kind(model: Any, layer: int) -> str:
    """Return what a decoder layer attends to, in the words of Hugging Face configurations."""
    config = model.get_decoder().config
    everywhere = FULL if getattr(config, "sliding_window", None) is None else SLIDING
    return (getattr(config, "layer_types", None) or [everywhere] * config.num_hidden_layers)[layer]


class Layers:
    """The layers of a decoder, for one prompt of batch 1 and what is generated after it.

    Args:
        model: the model.
        ids: [1, L] of the un-pruned prompt; None for families that need none.
        two_way: kinds of layers, in place of the family's.
    """

    def __init__(self, model: Any, ids: Tensor | None, two_way: Collection[str] | None = None) -> None:
        self.model, self.decoder, self.config = model, model.get_decoder(), model.get_decoder().config
        self.kinds = [kind(model, layer) for layer in range(self.config.num_hidden_layers)]
        causal = getattr(self.config, "use_bidirectional_attention", False) is None
        family = () if causal else TWO_WAY.get(model.config.model_type, ())
        self.two_way = family if two_way is None else two_way
        self.image = torch.zeros(0, dtype=torch.long) if ids is None else (ids[0] == IMAGE).long()

    def cache(self) -> DynamicCache:
        """Return a cache whose windowed layers hold everything: masks decide what is seen."""
        cache = DynamicCache(config=self.config)
        cache.layers = [DynamicLayer() if hasattr(layer, "sliding_window") else layer for layer in cache.layers]
        return cache

    def pairs(self, layer: int, queries: Tensor, keys: Tensor) -> Tensor:
        """Return [q, k] whether un-pruned columns `queries` see `keys` in a layer."""
        query, key = queries[:, None], keys[None]
        seen = key <= query
        if self.kinds[layer] in self.two_way:
            for image in self._images():
                seen |= torch.isin(query, image) & torch.isin(key, image)
        return seen & (query - key < self.config.sliding_window) if self.kinds[layer] == SLIDING else seen

    def mask(self, layer: int, queries: Tensor, keys: Tensor) -> Tensor | None:
        """Return the same as a mask of the model's kernel; None where sdpa needs none."""
        if self.kinds[layer] == LINEAR:
            return None
        seen = self.pairs(layer, queries, keys)[None, None]
        if self.config._attn_implementation == "eager":
            return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        images = self.kinds[layer] in self.two_way and len(queries) > 1
        return seen if images or self.kinds[layer] == SLIDING else None

    def masks(self, columns: Tensor, new: int) -> dict[str, Any]:
        """Return the decoder's mask for the last `new` of the `columns` so far, whose layers cache what they need."""
        if {*self.kinds} <= {FULL, LINEAR} and not self.two_way:
            return {"attention_mask": torch.ones(1, len(columns), dtype=torch.long)}
        masks = {}
        for layer, kind in enumerate(self.kinds):
            held = self.config.sliding_window - 1 + new if kind == SLIDING else len(columns)
            masks[kind] = self.mask(layer, columns[-new:], columns[-held:])
        return {"attention_mask": masks}

    def options(self, ids: Tensor | None, keep: Tensor | None = None) -> dict[str, Any]:
        """Return arguments of the decoder in a prefill or step on `ids` [1, n], or on those that `keep` names."""
        if ids is None or not getattr(self.config, "hidden_size_per_layer_input", 0):
            return {}
        inputs = self.decoder.get_per_layer_inputs(self._words(ids), None)
        return {"per_layer_inputs": inputs if keep is None else inputs[:, keep], "logits_to_keep": 1}

    def enter(self, hidden: Tensor, positions: Tensor, ids: Tensor | None) -> None:
        """Begin a forward on `ids` [1, n] with embeddings `hidden`: make the rotary tables and inputs of all layers."""
        embedding, self._positions = self.decoder.rotary_emb, positions
        several = "layer_type" in inspect.signature(embedding.forward).parameters
        where = positions.expand(3, 1, -1) if hasattr(self.model.base_model, "get_rope_index") else positions
        self._tables = {kind: embedding(hidden, where, *([kind] * several)) for kind in set(self.kinds)}
        own = self.options(ids).get("per_layer_inputs")
        self._inputs = None if own is None else self.decoder.project_per_layer_inputs(hidden, own)
        self._shared: dict[str, Any] = {}

    def move(self, places: Tensor, sources: Tensor) -> None:
        """Give columns `places` the inputs of the tokens at `sources`."""
        assert self._inputs is not None
        self._inputs[:, places] = self._inputs[:, sources]

    def call(self, layer: int, hidden: Tensor, mask: Tensor | None, at: Tensor | None = None, **options: Any) -> Tensor:
        """Call a layer; `at` [n] are those columns of the forward that `hidden` holds."""
        at = torch.arange(hidden.shape[1]) if at is None else at
        own = () if self._inputs is None else (self._inputs[:, at, layer],)
        if getattr(self.config, "num_kv_shared_layers", None) is not None:
            options["shared_kv_states"] = self._shared
        tables = tuple(table[:, at] for table in self._tables[self.kinds[layer]])
        output: Tensor = self.decoder.layers[layer](
            hidden,
            *own,
            attention_mask=mask,
            position_embeddings=tables,
            position_ids=self._positions[..., at],
            **options,
        )
        return output

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits of the decoder's output."""
        logits: Tensor = self.model.get_output_embeddings()(states)
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _images(self) -> list[Tensor]:
        """Return the columns of every image: of every run of placeholders."""
        columns = self.image.nonzero()[:, 0]
        ends = (columns.diff() > 1).nonzero()[:, 0] + 1
        return [part for part in columns.tensor_split(ends) if len(part)]

    def _words(self, ids: Tensor) -> Tensor:
        """Return ids with padding in place of images, which have no inputs of their own."""
        return ids.where(ids != IMAGE, self.config.pad_token_id)
