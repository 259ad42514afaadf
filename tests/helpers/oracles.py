"""Independent references for the engine: physical shortening and masking, written without hooks where possible."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from tests.helpers.tiny import IMAGE, VIDEO, visual
from uniprune.engine import PrefillReport


def has_mrope(model: Any) -> bool:
    """Check whether position ids have three axes."""
    return hasattr(model.base_model, "get_rope_index")


def encoded(model: Any, x: dict[str, Tensor]) -> list[tuple[Tensor, Any]]:
    """Return, for images and for videos, where they go ([B, L], True) and what the model makes of them."""
    ids, found = x["input_ids"], []
    if "pixel_values" in x:
        names = ("pixel_values", "image_grid_thw", "image_sizes", "batch_num_images")
        vision = {name: x[name] for name in names if name in x}
        found.append((ids == IMAGE, model.get_image_features(**vision, return_dict=True)))
    if "pixel_values_videos" in x:
        places = ids == VIDEO if bool((ids == VIDEO).any()) else ids == IMAGE
        vision = {name: x[name] for name in ("pixel_values_videos", "video_grid_thw") if name in x}
        found.append((places, model.get_video_features(**vision, return_dict=True)))
    return found


def merged_inputs(model: Any, x: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the embeddings and position ids the un-pruned language model receives; batch 1 without padding."""
    ids = x["input_ids"]
    embeds = model.get_input_embeddings()(ids)
    for places, output in encoded(model, x):
        features = output.pooler_output
        flat = features.flatten(0, -2) if torch.is_tensor(features) else torch.cat(list(features)).flatten(0, -2)
        embeds = embeds.masked_scatter(places[..., None].expand_as(embeds), flat)
    if has_mrope(model):
        grids = {name: x[name] for name in ("image_grid_thw", "video_grid_thw", "second_per_grid_ts") if name in x}
        positions, _ = model.base_model.get_rope_index(ids, x["mm_token_type_ids"], **grids)
        return embeds, positions
    return embeds, torch.arange(ids.shape[1])[None]


@torch.no_grad()
def deepstack_rows(model: Any, x: dict[str, Tensor]) -> list[Tensor]:
    """Return [L, D] per first decoder layer: what is added to its output, 0 at text; batch 1. Mostly of no layer."""
    found: list[Tensor] = []
    for places, output in encoded(model, x):
        for number, images in enumerate(getattr(output, "deepstack_features", None) or []):
            if number == len(found):
                found.append(torch.zeros(x["input_ids"].shape[1], images[0].shape[1]))
            found[number][places[0]] = torch.cat(list(images))
    return found


# --- kinds of layers ------------------------------------------------------------------------------------------------
def kind(model: Any, layer: int) -> str:
    """Return what a decoder layer attends to, in the words of Hugging Face configurations."""
    config = model.get_decoder().config
    everywhere = "full_attention" if getattr(config, "sliding_window", None) is None else "sliding_attention"
    return (getattr(config, "layer_types", None) or [everywhere] * config.num_hidden_layers)[layer]


def rotary(model: Any, hidden: Tensor, positions: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines that a decoder layer rotates with; some models have a table per kind of layer."""
    embedding = model.get_decoder().rotary_emb
    kinds = [kind(model, layer)] if "layer_type" in inspect.signature(embedding.forward).parameters else []
    return embedding(hidden, positions.expand(3, 1, -1) if has_mrope(model) else positions, *kinds)


def allowed(model: Any, layer: int, queries: Tensor, keys: Tensor, blocks: Tensor | None = None) -> Tensor:
    """Return [q, k] True where position `queries[q]` of the un-pruned sequence may attend to position `keys[k]`.

    `blocks` [L] is the number of the block of every position, -1 for none, whose tokens see each other both ways.
    """
    seen = keys[None] <= queries[:, None]
    if blocks is not None:
        block = torch.nn.functional.pad(blocks, (0, 1 + int(queries.max())), value=-1)
        seen = seen | ((block[keys][None] == block[queries][:, None]) & (block[keys] >= 0))
    if kind(model, layer) == "sliding_attention":
        seen = seen & (queries[:, None] - keys[None] < model.get_decoder().config.sliding_window)
    return seen


def growing_cache(model: Any) -> DynamicCache:
    """Return a cache whose windowed layers hold everything: masks decide what is seen."""
    cache = DynamicCache(config=model.get_decoder().config)
    cache.layers = [DynamicLayer() if hasattr(layer, "sliding_window") else layer for layer in cache.layers]
    return cache


@torch.no_grad()
def gathered_layers(
    model: Any,
    x: dict[str, Tensor],
    keep: dict[int, Tensor],
    steps: int = 1,
    blocks: Tensor | None = None,
    block_kinds: Collection[str] = (),
) -> tuple[Tensor, Tensor]:
    """Loop over the decoder's layers on the positions `keep[K]` [L] that are left from layer K on; batch 1.

    Args:
        model: the model.
        x: arguments of its forward.
        keep: K -> positions.
        steps: greedy steps, the first of which the prefill gives.
        blocks: see `allowed`; in layers of `block_kinds`.
        block_kinds: kinds of layers.

    Returns:
        [1, n, V] logits of the prompt and [steps, V] logits of greedy steps.
    """
    decoder, (embeds, positions) = model.get_decoder(), merged_inputs(model, x)
    added, cache, length = dict(enumerate(deepstack_rows(model, x))), growing_cache(model), embeds.shape[1]
    left = [torch.arange(length)] * len(decoder.layers)
    for first, kept in keep.items():
        left[first:] = [at[kept[at]] for at in left[first:]]

    def run(hidden: Tensor, at: Tensor, where: Tensor, places: list[Tensor]) -> Tensor:
        for number, layer in enumerate(decoder.layers):
            inside = torch.isin(at, places[number])
            hidden, at, where = hidden[:, inside], at[inside], where[..., inside]
            options: dict[str, Any] = {"attention_mask": None}
            if kind(model, number) != "linear_attention":
                own = blocks if kind(model, number) in block_kinds else None
                seen = allowed(model, number, at, places[number], own)[None, None]
                plain = bool((seen == (places[number][None] <= at[:, None])).all())
                eager = model.config._attn_implementation == "eager"
                mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(hidden.dtype).min) if eager else seen
                options["attention_mask"] = None if plain and not eager else mask
            tables = rotary(model, hidden, where, number)
            hidden = layer(
                hidden, position_embeddings=tables, position_ids=where, past_key_values=cache, use_cache=True, **options
            )
            if number in added and len(at) > 1:
                hidden = hidden + added[number][at]
        return decoder.norm(hidden)

    head, prompt = model.get_output_embeddings(), run(embeds, torch.arange(length), positions, left)
    logits = [head(prompt[:, -1])]
    for step in range(steps - 1):
        token, at = model.get_input_embeddings()(logits[-1].argmax(-1, keepdim=True)), torch.tensor([length + step])
        left = [torch.cat((places, at)) for places in left]
        logits.append(head(run(token, at, positions.amax(-1, keepdim=True) + 1 + step, left)[:, -1]))
    return head(prompt), torch.cat(logits)


@torch.no_grad()
def physically_short(
    model: Any, embeds: Tensor, positions: Tensor, keep: Tensor, steps: int, added: Sequence[Tensor] = ()
) -> tuple[list[int], Tensor]:
    """Decode greedily after a prompt that really is shorter; kept tokens keep their `positions` and `added` rows."""
    decoder, head, cache = (
        model.get_decoder(),
        model.get_output_embeddings(),
        DynamicCache(config=model.get_decoder().config),
    )
    first, length = positions[..., -1:] + 1, int(keep.sum())

    def run(embedded: Tensor, where: Tensor, seen: int, **more: Any) -> Tensor:
        mask = torch.ones(1, seen, dtype=torch.long)
        options = {"past_key_values": cache, "use_cache": True, **more}
        out = decoder(inputs_embeds=embedded, position_ids=where, attention_mask=mask, **options)
        return head(out.last_hidden_state[:, -1])

    more: dict[str, Any] = {}
    if added:
        places = added[0][keep].any(-1)
        rows = [level[keep][places] for level in added]
        more = {"visual_pos_masks": places[None], "deepstack_visual_embeds": rows}
    logits = [run(embeds[:, keep], positions[..., keep], length, **more)]
    for step in range(steps - 1):
        token = model.get_input_embeddings()(logits[-1].argmax(-1, keepdim=True))
        logits.append(run(token, first + step, length + step + 1))
    return torch.cat(logits).argmax(-1).tolist(), torch.cat(logits)


@torch.no_grad()
def layerwise_masked(
    model: Any,
    embeds: Tensor,
    positions: Tensor,
    dropped: dict[int, Tensor],
    steps: int,
    forgotten: dict[int, Tensor] | None = None,
    added: Sequence[Tensor] = (),
) -> tuple[list[int], Tensor, Tensor]:
    """Mask instead of dropping: layer i gives -inf to the columns dropped at or before it. `dropped` is {K: bool [L]}.

    `forgotten` is the same for decode steps, where eviction drops more than the prefill did. `added` is added to the
    output of the first layers in the prefill.

    Returns:
        Tokens, step logits and the final hidden states of the prompt.
    """
    decoder, head, cache = model.get_decoder(), model.get_output_embeddings(), growing_cache(model)
    length = embeds.shape[1]

    def run(hidden: Tensor, where: Tensor, start: int) -> Tensor:
        stop = start + hidden.shape[1]
        for i, layer in enumerate(decoder.layers):
            seen = allowed(model, i, torch.arange(start, stop), torch.arange(stop))
            for k, columns in (dropped if forgotten is None or not start else dropped | forgotten).items():
                if i >= k:
                    seen[:, :length] &= ~columns
            mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
            tables = rotary(model, hidden, where, i)
            hidden = layer(
                hidden, attention_mask=mask, position_embeddings=tables, past_key_values=cache, use_cache=True
            )
            if not start and i < len(added):
                hidden = hidden + added[i]
        return decoder.norm(hidden)

    prompt = run(embeds, positions, 0)
    logits = [head(prompt[:, -1])]
    for step in range(steps - 1):
        token = model.get_input_embeddings()(logits[-1].argmax(-1, keepdim=True))
        logits.append(head(run(token, positions[..., -1:] + 1 + step, length + step)[:, -1]))
    return torch.cat(logits).argmax(-1).tolist(), torch.cat(logits), prompt


def attention_number(model: Any, layer: int) -> int:
    """Return which of a model's `attentions` belongs to a layer: layers without attention have none."""
    return layer - sum(kind(model, before) == "linear_attention" for before in range(layer))


@contextlib.contextmanager
def masked(model: Any, dropped: dict[int, Tensor]) -> Iterator[None]:
    """Mask `dropped[K]` ([B, L] bool) in layers >= K of an *eager* model inside the block, in any decoding mode.

    Layers of linear attention, which has no pairs to mask, get the other tokens only, packed to the right.
    """

    def hook(layer: int) -> Any:
        def mask_columns(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            mask, cache = kwargs["attention_mask"].clone(), kwargs.get("past_key_values")
            past = 0 if cache is None else int(cache.get_seq_length(layer))
            first = max(0, past + mask.shape[-2] - mask.shape[-1])  # a window's cache holds the last columns only
            for k, columns in dropped.items():
                if layer >= k:
                    columns = columns.repeat_interleave(mask.shape[0] // columns.shape[0], 0)[:, first:]
                    columns = columns[:, : mask.shape[-1]]
                    mask[..., : columns.shape[1]].masked_fill_(columns[:, None, None], torch.finfo(mask.dtype).min)
            return args, {**kwargs, "attention_mask": mask}

        return mask_columns

    def packed(layer: int) -> tuple[Any, Any]:
        orders: list[Tensor] = []

        def pack(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            hidden, valid = args[0], kwargs["attention_mask"]
            if hidden.shape[1] == 1:
                return None
            left = torch.ones(hidden.shape[:2], dtype=torch.bool) if valid is None else valid.bool()
            for k, columns in dropped.items():
                if layer >= k:
                    left = left & ~columns.repeat_interleave(len(hidden) // len(columns), 0)
            orders.append(left.int().argsort(stable=True)[..., None].expand(hidden.shape))
            return (hidden.gather(1, orders[0]), *args[1:]), {**kwargs, "attention_mask": left.sort()[0]}

        def unpack(module: Any, args: Any, output: Tensor) -> Tensor | None:
            return torch.empty_like(output).scatter(1, orders.pop(), output) if orders else None

        return pack, unpack

    handles = []
    for i, layer in enumerate(model.get_decoder().layers):
        if kind(model, i) == "linear_attention":
            pack, unpack = packed(i)
            handles += [layer.register_forward_pre_hook(pack, with_kwargs=True), layer.register_forward_hook(unpack)]
        else:
            handles.append(layer.register_forward_pre_hook(hook(i), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def dropped_by(
    report: PrefillReport, x: dict[str, Tensor], *visual_ids: int, tokens: Tensor | None = None
) -> dict[int, Tensor]:
    """Return {K: bool [B, L]} of the visual positions each stage has dropped, from the report's cells.

    Placeholders are `visual_ids`, by default those of images. Some without a token, which follow the first cells of
    their image, stay while the image keeps a cell. `tokens` are the others, by default those of LLaVA-NeXT, or all of a
    video.
    """
    placeholders = torch.isin(x["input_ids"], torch.tensor(visual_ids or (IMAGE,)))
    if tokens is None:
        tokens = visual(x) if visual_ids in ((), (IMAGE,)) else placeholders
    dropped: dict[int, Tensor] = {}
    for b, row in enumerate(report.rows):
        places, others = (mask[b].nonzero()[:, 0] for mask in (tokens, placeholders & ~tokens))
        starts = [0]
        for grids in row.grids:
            starts.append(starts[-1] + sum(t * h * w for t, h, w in grids))
        image = torch.bucketize(tokens[b].cumsum(0)[others] - 1, torch.tensor(starts[1:]), right=True)
        for stage in row.stages:
            lost = dropped.setdefault(stage.layer, placeholders.clone())
            for number, (start, cells) in enumerate(zip(starts, stage.kept, strict=False)):
                lost[b, places[start + cells]] = False
                lost[b, others[image == number]] = not len(cells)
    return dropped
