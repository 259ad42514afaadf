"""Independent references for the engine: physical shortening and masking, written without hooks where possible."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tests.helpers.tiny import IMAGE, VIDEO, visual
from uniprune.engine import PrefillReport


def has_mrope(model: Any) -> bool:
    """Check whether position ids have three axes."""
    return hasattr(model.base_model, "get_rope_index")


def encoded(model: Any, x: dict[str, Tensor]) -> list[tuple[Tensor, Any]]:
    """Return, for images and for videos, where they go ([B, L], True) and what the model makes of them."""
    ids, found = x["input_ids"], []
    if "pixel_values" in x:
        vision = {name: x[name] for name in ("pixel_values", "image_grid_thw", "image_sizes") if name in x}
        found.append((ids == IMAGE, model.get_image_features(**vision, return_dict=True)))
    if "pixel_values_videos" in x:
        places = ids == VIDEO if bool((ids == VIDEO).any()) else ids == IMAGE
        vision = {name: x[name] for name in ("pixel_values_videos", "video_grid_thw")}
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
    decoder, head, cache = (
        model.get_decoder(),
        model.get_output_embeddings(),
        DynamicCache(config=model.get_decoder().config),
    )
    length = embeds.shape[1]

    def run(hidden: Tensor, where: Tensor, start: int) -> Tensor:
        stop = start + hidden.shape[1]
        where = where.expand(3, 1, -1) if has_mrope(model) else where
        rotary = decoder.rotary_emb(hidden, where)
        causal = torch.arange(stop)[None] <= torch.arange(start, stop)[:, None]
        for i, layer in enumerate(decoder.layers):
            allowed = causal.clone()
            for k, columns in (dropped if forgotten is None or not start else dropped | forgotten).items():
                if i >= k:
                    allowed[:, :length] &= ~columns
            mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]
            hidden = layer(
                hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=cache, use_cache=True
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


@contextlib.contextmanager
def masked(model: Any, dropped: dict[int, Tensor]) -> Iterator[None]:
    """Mask `dropped[K]` ([B, L] bool) in layers >= K of an *eager* model inside the block, in any decoding mode."""

    def hook(layer: int) -> Any:
        def mask_columns(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            mask = kwargs["attention_mask"].clone()
            for k, columns in dropped.items():
                if layer >= k:
                    columns = columns.repeat_interleave(mask.shape[0] // columns.shape[0], 0)
                    mask[..., : columns.shape[1]].masked_fill_(columns[:, None, None], torch.finfo(mask.dtype).min)
            return args, {**kwargs, "attention_mask": mask}

        return mask_columns

    layers = model.get_decoder().layers
    handles = [m.register_forward_pre_hook(hook(i), with_kwargs=True) for i, m in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def dropped_by(report: PrefillReport, x: dict[str, Tensor], *visual_ids: int) -> dict[int, Tensor]:
    """Return {K: bool [B, L]} of the visual positions each stage has dropped, from the report's cells.

    Placeholders are `visual_ids`, by default those of images. Some without a token, which follow the first cells of
    their image, stay while the image keeps a cell.
    """
    placeholders = torch.isin(x["input_ids"], torch.tensor(visual_ids or (IMAGE,)))
    tokens = placeholders if visual_ids else visual(x)
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
