"""Independent references for the engine: physical shortening and masking, written without hooks where possible."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tests.helpers.layers import Layers, kind
from tests.helpers.tiny import IMAGE, VIDEO, visual
from uniprune.engine import PrefillReport

VISUAL = ("pixel_values", "image_grid_thw", "image_sizes", "batch_num_images", "image_position_ids")
"""Arguments of `get_image_features`, by family."""


def has_mrope(model: Any) -> bool:
    """Check whether position ids have three axes."""
    return hasattr(model.base_model, "get_rope_index")


def encoded(model: Any, x: dict[str, Tensor]) -> list[tuple[Tensor, Any]]:
    """Return, for images and for videos, where they go ([B, L], True) and what the model makes of them."""
    ids, found = x["input_ids"], []
    if "pixel_values" in x:
        vision = {name: x[name] for name in VISUAL if name in x}
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
            rows = images if isinstance(images, Tensor) else torch.cat(list(images))  # of all images before 5.23
            if number == len(found):
                found.append(torch.zeros(x["input_ids"].shape[1], rows.shape[1]))
            found[number][places[0]] = rows
    return found


@torch.no_grad()
def gathered_layers(
    model: Any,
    x: dict[str, Tensor],
    keep: dict[int, Tensor],
    steps: int = 1,
    two_way: Collection[str] | None = None,
    cache: Any = None,
) -> tuple[Tensor, Tensor]:
    """Loop over the decoder's layers on the positions `keep[K]` [L] that are left from layer K on; batch 1.

    Args:
        model: the model.
        x: arguments of its forward.
        keep: K -> positions.
        steps: greedy steps, the first of which the prefill gives.
        two_way: see `Layers`.
        cache: an empty KV cache, in place of one that holds everything as it is.

    Returns:
        [1, n, V] logits of the prompt and [steps, V] logits of greedy steps.
    """
    (embeds, positions), prompt = merged_inputs(model, x), Layers(model, x["input_ids"], two_way)
    added, length = dict(enumerate(deepstack_rows(model, x))), embeds.shape[1]
    cache = prompt.cache() if cache is None else cache
    left = [torch.arange(length)] * len(prompt.kinds)
    for first, kept in keep.items():
        left[first:] = [at[kept[at]] for at in left[first:]]

    def run(hidden: Tensor, ids: Tensor, at: Tensor, where: Tensor, places: list[Tensor]) -> Tensor:
        prompt.enter(hidden, where, ids)
        columns = torch.arange(hidden.shape[1])
        for number in range(len(prompt.kinds)):
            inside = torch.isin(at, places[number])
            hidden, at, columns = hidden[:, inside], at[inside], columns[inside]
            mask = prompt.mask(number, at, places[number])
            hidden = prompt.call(number, hidden, mask, columns, past_key_values=cache, use_cache=True)
            if number in added and len(at) > 1:
                hidden = hidden + added[number][at]
        return prompt.decoder.norm(hidden)

    states = run(embeds, x["input_ids"], torch.arange(length), positions, left)
    logits = [prompt.logits(states[:, -1])]
    for step in range(steps - 1):
        chosen = logits[-1].argmax(-1, keepdim=True)
        token, at = model.get_input_embeddings()(chosen), torch.tensor([length + step])
        left = [torch.cat((places, at)) for places in left]
        where = positions[..., -1:] + 1 + step
        logits.append(prompt.logits(run(token, chosen, at, where, left)[:, -1]))
    return prompt.logits(states), torch.cat(logits)


@torch.no_grad()
def physically_short(
    model: Any,
    embeds: Tensor,
    positions: Tensor,
    keep: Tensor,
    steps: int,
    added: Sequence[Tensor] = (),
    ids: Tensor | None = None,
) -> tuple[list[int], Tensor]:
    """Decode greedily after a prompt that really is shorter; kept tokens keep their `positions` and `added` rows.

    `ids` [1, L] of the un-pruned prompt are needed where layers differ.
    """
    decoder, cache, prompt = model.get_decoder(), DynamicCache(config=model.get_decoder().config), Layers(model, ids)
    first, length, at = positions[..., -1:] + 1, embeds.shape[1], torch.arange(embeds.shape[1])[keep]

    def run(embedded: Tensor, where: Tensor, at: Tensor, **more: Any) -> Tensor:
        options = {"past_key_values": cache, "use_cache": True, **prompt.masks(at, embedded.shape[1]), **more}
        out = decoder(inputs_embeds=embedded, position_ids=where, **options)
        return prompt.logits(out.last_hidden_state[:, -1])

    more: dict[str, Any] = prompt.options(ids, keep)
    if added:
        places = added[0][keep].any(-1)
        rows = [level[keep][places] for level in added]
        more = {"visual_pos_masks": places[None], "deepstack_visual_embeds": rows}
    logits = [run(embeds[:, keep], positions[..., keep], at, **more)]
    for step in range(steps - 1):
        chosen = logits[-1].argmax(-1, keepdim=True)
        token, at = model.get_input_embeddings()(chosen), torch.cat((at, torch.tensor([length + step])))
        logits.append(run(token, first + step, at, **prompt.options(chosen)))
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
    ids: Tensor | None = None,
) -> tuple[list[int], Tensor, Tensor]:
    """Mask instead of dropping: layer i gives -inf to the columns dropped at or before it. `dropped` is {K: bool [L]}.

    `forgotten` is the same for decode steps, where eviction drops more than the prefill did. `added` is added to the
    output of the first layers in the prefill. `ids` as in `physically_short`.

    Returns:
        Tokens, step logits and the final hidden states of the prompt.
    """
    decoder, prompt = model.get_decoder(), Layers(model, ids)
    cache, length = prompt.cache(), embeds.shape[1]

    def run(hidden: Tensor, where: Tensor, start: int, ids: Tensor | None) -> Tensor:
        stop = start + hidden.shape[1]
        prompt.enter(hidden, where, ids)
        for i in range(len(decoder.layers)):
            allowed = prompt.pairs(i, torch.arange(start, stop), torch.arange(stop))
            for k, columns in (dropped if forgotten is None or not start else dropped | forgotten).items():
                if i >= k:
                    allowed[:, :length] &= ~columns
            mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]
            hidden = prompt.call(i, hidden, mask, past_key_values=cache, use_cache=True)
            if not start and i < len(added):
                hidden = hidden + added[i]
        return decoder.norm(hidden)

    states = run(embeds, positions, 0, ids)
    logits = [prompt.logits(states[:, -1])]
    for step in range(steps - 1):
        chosen = logits[-1].argmax(-1, keepdim=True)
        token = model.get_input_embeddings()(chosen)
        logits.append(prompt.logits(run(token, positions[..., -1:] + 1 + step, length + step, chosen)[:, -1]))
    return torch.cat(logits).argmax(-1).tolist(), torch.cat(logits), states


def attention_number(model: Any, layer: int) -> int:
    """Return which of a model's `attentions` belongs to a layer: layers without attention have none."""
    return layer - sum(kind(model, before) == "linear_attention" for before in range(layer))


@contextlib.contextmanager
def masked(model: Any, dropped: dict[int, Tensor]) -> Iterator[None]:
    """Mask `dropped[K]` ([B, L] bool) in layers >= K of an *eager* model inside the block, in any decoding mode.

    Layers of linear attention, which has no pairs to mask, get the other tokens only, packed to the right.
    """
    end = 0

    def hook(layer: int) -> Any:
        def mask_columns(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            nonlocal end
            mask, cache = kwargs["attention_mask"].clone(), kwargs.get("past_key_values")
            if layer == 0:  # whatever a layer holds, its columns end with those of this forward
                end = args[0].shape[1] + (0 if cache is None else cache.get_seq_length(0))
            first = end - mask.shape[-1]
            for k, columns in dropped.items():
                if layer >= k:
                    columns = columns.repeat_interleave(mask.shape[0] // columns.shape[0], 0)[:, first:]
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
        for stage in {one.layer: one for one in row.stages}.values():  # of two before one layer, the last
            lost = dropped.setdefault(stage.layer, placeholders.clone())
            for number, (start, cells) in enumerate(zip(starts, stage.kept, strict=False)):
                lost[b, places[start + cells]] = False
                lost[b, others[image == number]] = not len(cells)
    return dropped
