"""Kinds of decoder layers: which pairs of tokens may attend to each other in each of them.

A window is counted in positions of the un-pruned prompt, not in tokens that are left: over these it would cover more of
the prompt than in the un-pruned model. Every pair that is left and saw each other still does, and no other.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    and_masks,
    causal_mask_function,
    create_causal_mask,
    or_masks,
)

from uniprune.engine.compaction import take
from uniprune.engine.device_tokens import DeviceTokens
from uniprune.engine.host_copy import to_device
from uniprune.engine.token_map import PrefillInputs, Tokens
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.context import FULL, LINEAR, SLIDING
from uniprune.pruning.base import Pruner

MASKED = ("eager", "sdpa")
"""Kernels that are given a mask of all pairs; others count a window over the tokens they are given."""


def attention_mask(
    config: Any,
    kind: str,
    layer: int,
    hidden: Tensor,
    valid: Tensor | None,
    cache: Any,
    positions: Callable[[], Tensor],
    end: int,
    blocks: Tensor | None = None,
) -> Any:
    """Return the attention mask of `layer` for `hidden` [B, q, D], in the format of the active attention kernel.

    `layer_idx` sizes it on that layer's own KV length. Position ids are withheld: with gaps in them, mask creation and
    the flash kernels would take one pruned sequence for several packed ones.

    Args:
        config: the decoder's config.
        kind: the layer's kind.
        layer: the layer's index.
        hidden: [B, q, D] inputs of the layer.
        valid: [B, past + q] False at padding; None without padding, so that no value is read from a device.
        cache: the KV cache or None.
        positions: computes [B, past + q] un-pruned positions of the layer's tokens, 0 at padding.
        end: the position after the last one.
        blocks: [B, past + q] number of the block a token belongs to, within which attention is two-way, -1 for none.
    """
    count = hidden.shape[1]
    if kind == LINEAR:  # padding is zeroed; tokens of decode steps are never padding
        return valid
    windowed = kind == SLIDING and end > config.sliding_window
    if not windowed and blocks is None:
        if valid is not None and config._attn_implementation == "sdpa":
            seen = _seen(layer, count, cache, to_device(valid, hidden.device))
            if seen is not None:
                return seen
        return create_causal_mask(
            config=config,
            inputs_embeds=hidden,
            attention_mask=valid,
            past_key_values=cache,
            position_ids=None,
            layer_idx=layer,
            allow_is_causal_skip=valid is None,
        )
    # `create_causal_mask` takes 20 ms on the CPU for rules of one's own, pair by pair; these are for all pairs at once.
    rule, (length, first) = causal_mask_function, (count, 0) if cache is None else cache.get_mask_sizes(count, layer)
    if blocks is not None:
        block = _filled(blocks, length + first, hidden)
        rule = or_masks(rule, lambda b, h, q, k: (block[b, q] == block[b, k]) & (block[b, q] >= 0))
    if windowed:
        where, window = _filled(positions(), length + first, hidden), config.sliding_window
        rule = and_masks(rule, lambda b, h, q, k: where[b, q] - where[b, k] < window)
    return ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation](
        batch_size=len(hidden),
        q_length=count,
        kv_length=length,
        q_offset=0 if cache is None else cache.get_query_offset(layer),
        kv_offset=first,
        mask_function=rule,
        attention_mask=None if valid is None else to_device(valid, hidden.device).bool(),
        allow_is_causal_skip=False,
        dtype=hidden.dtype,
        config=config,
        device=hidden.device,
    )


def _seen(layer: int, count: int, cache: Any, valid: Tensor) -> Tensor | None:
    """Return the mask of `create_causal_mask` for the sdpa kernel, in 3 operations for 11, where it is a simple one.

    That is the mask of a single new token, which sees all that are left, and of tokens that are all there are.
    """
    sizes = (count, 0) if cache is None else tuple(cache.get_mask_sizes(count, layer))
    if sizes != (valid.shape[1], 0):
        return None
    if count == 1 and cache is not None:
        return valid.bool()[:, None, None]
    if count != valid.shape[1] or (cache is not None and cache.get_query_offset(layer)):
        return None
    places = torch.arange(count, device=valid.device)
    return (places <= places[:, None]) & valid.bool()[:, None, None]


def _filled(values: Tensor, end: int, hidden: Tensor) -> Tensor:
    """Return `values` [B, n] on the device of `hidden`, filled up to the end of a static cache, which nothing reads."""
    return to_device(pad(values, (0, max(0, end - values.shape[1])), value=-1), hidden.device)


def gathered_arguments(
    adapter: ModelAdapter,
    layer: int,
    hidden: Tensor,
    kwargs: dict[str, Any],
    now: DeviceTokens,
    rotary_rows: Tensor,
    tokens: Tokens,
) -> dict[str, Any]:
    """Return the arguments with which a prefill calls `layer` on the tokens that are left.

    Args:
        adapter: the model's adapter.
        layer: the layer's index.
        hidden: [B, n, D] the tokens that are left.
        kwargs: the arguments for the un-pruned prompt.
        now: which tokens are left.
        rotary_rows: [B, n] rows of the un-pruned rotary tables.
        tokens: the un-pruned prompts.
    """
    config, kind = adapter.decoder.config, adapter.kinds[layer]
    positions, cache = kwargs.get("position_ids"), kwargs.get("past_key_values")
    valid, blocks = now.valid(hidden.device), None
    if kind in adapter.block_kinds:
        blocks = to_device(adapter.blocks(tokens.visual), hidden.device).gather(1, now.index(hidden.device))
        blocks = blocks if valid is None else blocks.where(valid, -1)
    if positions is not None and needs_positions(adapter.layers[layer]):
        positions = positions.expand(len(rotary_rows), -1).gather(1, to_device(rotary_rows, positions.device))
    else:
        positions = None
    where = partial(now.index, hidden.device)
    return {
        "position_embeddings": tuple(take(table, rotary_rows) for table in kwargs["position_embeddings"]),
        "attention_mask": attention_mask(config, kind, layer, hidden, valid, cache, where, tokens.end, blocks),
        "position_ids": positions,
    }


def check_marked(inputs: PrefillInputs) -> None:
    """Refuse a forward in which un-pruned layers would find no blocks of two-way attention, but the engine would.

    Raises:
        UnsupportedError: arguments are missing by which the model finds images.
    """
    if inputs.missing:
        raise UnsupportedError(
            f"the forward has no {', '.join(inputs.missing)}, by which the model finds images whose tokens see each "
            "other both ways; pass what its processor returns"
        )


def needs_positions(layer: Any) -> bool:
    """Check whether a layer's attention computes with position ids, beyond the rotary tables made of them."""
    return hasattr(layer, "self_attn") and _takes_positions(layer.self_attn)


def _takes_positions(attention: Any) -> bool:
    """Check whether an attention cannot do without position ids."""
    parameter = _parameters(type(attention).forward).get("position_ids")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def rotation(attention: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the function by which a decoder's attention rotates heads [B, heads, n, d], given cosines and sines.

    Families rotate halves or pairs of a head, all or a part of it: the module beside the attention knows.

    Raises:
        UnsupportedError: there is none with the arguments that transformers' decoders share.
    """
    function: Any = getattr(sys.modules[type(attention).__module__], "apply_rotary_pos_emb", None)
    names = [] if function is None else list(_parameters(function))
    half = getattr(sys.modules[type(attention).__module__], "rotate_half", None)
    if names[:4] == ["q", "k", "cos", "sin"] and half is not None and _turns_halves(function, half):
        return partial(_half_turned, function, half)
    if names[:4] == ["q", "k", "cos", "sin"]:
        return lambda heads, cos, sin: function(heads, heads[:, :0], cos, sin)[0]
    if names[:3] == ["x", "cos", "sin"]:
        return lambda heads, cos, sin: function(heads, cos, sin)
    raise UnsupportedError(
        f"the rotation of {type(attention).__name__} is unknown, so its attention cannot be recomputed: its module "
        "has no apply_rotary_pos_emb(q, k, cos, sin); use a method that reads no LLM attention"
    )


@cache
def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _half_turned(function: Any, half: Any, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return heads rotated as `function` does, which would rotate keys, too: as a whole, or as it rotates a part."""
    if cos.shape[-1] != heads.shape[-1]:
        return function(heads, heads[:, :0], cos, sin)[0]  # type: ignore[no-any-return]  # transformers' are not typed
    turned: Tensor = heads * cos[:, None] + half(heads) * sin[:, None]
    return turned


@cache
def _turns_halves(function: Any, half: Any) -> bool:
    """Check whether a rotation of whole heads is x * cos + half(x) * sin, bit for bit, on numbers of two precisions."""
    random = torch.Generator().manual_seed(0)
    numbers = (torch.rand(shape, generator=random) for shape in ((1, 2, 3, 8), (1, 3, 8), (1, 3, 8)))
    single = tuple(numbers)
    return all(
        torch.equal(function(heads, heads[:, :0], cos, sin)[0], heads * cos[:, None] + half(heads) * sin[:, None])
        for heads, cos, sin in (single, tuple(one.bfloat16() for one in single))
    )


def check_recomputable(attention: Any) -> None:
    """Refuse a decoder layer's attention that `AttentionCapture` would compute otherwise than the module does.

    Raises:
        UnsupportedError: naming what it has or lacks.
    """
    problem = None
    lacking = [part for part in ("q_proj", "k_proj", "o_proj", "scaling", "head_dim") if not hasattr(attention, part)]
    if lacking:
        problem = f"it has no {', '.join(lacking)}"
    elif getattr(attention, "attn_logit_softcapping", None) is not None:
        problem = f"its logits are capped at {attention.attn_logit_softcapping}"
    elif _takes_positions(attention):
        problem = "it scales its queries by their positions"
    if problem:
        raise UnsupportedError(
            f"the attention of {type(attention).__name__} cannot be recomputed: {problem}; use a method that reads no "
            "LLM attention"
        )
    rotation(attention)


def check_kinds(adapter: ModelAdapter, pruner: Pruner) -> None:
    """Refuse decoders with layers of unknown kinds, and what known kinds cannot be combined with.

    Raises:
        UnsupportedError: naming the kinds, the kernel or the setting.
    """
    config, kinds = adapter.decoder.config, adapter.kinds
    unknown = sorted(set(kinds) - {FULL, SLIDING, LINEAR})
    if unknown or set(kinds) == {LINEAR}:
        raise UnsupportedError(
            f"the decoder has {', '.join(unknown or [f'only {LINEAR}'])} layers; only {FULL}, {SLIDING} and, among "
            f"them, {LINEAR} layers are supported: what others compute from a part of the tokens is not known"
        )
    two_way = getattr(config, "use_bidirectional_attention", None)
    if two_way not in (None, False, "vision"):
        raise UnsupportedError(
            f"the decoder has use_bidirectional_attention={two_way!r}: every token sees later ones; only causal "
            "decoders and two-way attention within images are supported"
        )
    kernel = config._attn_implementation
    if kernel not in MASKED and (SLIDING in kinds or adapter.block_kinds):
        raise UnsupportedError(
            f"the decoder has {', '.join(sorted(set(kinds)))} layers, whose masks attn_implementation={kernel!r} does "
            f"not take: it counts a window over the tokens that are left; load the model with {' or '.join(MASKED)}"
        )
    if kernel not in MASKED and any(map(needs_positions, adapter.layers)):
        raise UnsupportedError(
            f"the decoder's attention computes with position ids, and attn_implementation={kernel!r} takes gaps in "
            f"them for several sequences; load the model with {' or '.join(MASKED)}"
        )
    if pruner.positions != "original" and SLIDING in kinds:
        raise UnsupportedError(
            f'positions="{pruner.positions}" is not defined for {SLIDING} layers, whose windows are counted in '
            'positions of the un-pruned prompt; use positions="original"'
        )
