"""Check that processor and model agree on the tokens of an image, by encoding pictures on a model without weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from uniprune.errors import UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.messages import VISUAL_TOKENS
from uniprune.modeling.pictures import noise, processed, reason

PICTURES = ((500, 375), (300, 500))
"""Sizes, width first, that are cut into tiles in different ways."""
SAME = ("image_grid_pinpoints",)
"""Settings that image processor and model hold by one name and that pictures of few sizes do not compare."""
ALIKE = {"merge_size": "spatial_merge_size", "crop_size": "image_size", "size": "image_size"}
"""Setting of a processor -> its name in the model's configuration, where they differ."""
SHAPE_KEPT = (gelu, layer_norm)
"""Functions of a tower whose result has the shape of their first argument, and that are slow without values."""
REMEDY = "config.json, the processor's files and the tokenizer's must be of one checkpoint; fetch it anew, all of it"


def check_placeholders(source: str, processor: Any, adapter: ModelAdapter) -> bool:
    """Check that the model makes as many tokens of a picture as the processor writes placeholders for it.

    Args:
        source: hub id or folder of the checkpoint, for messages.
        processor: its processor.
        adapter: that of its model, which needs no weights.

    Returns:
        False if the tower does not run without weights, so that the same must be checked on the loaded model.

    Raises:
        UserError: they disagree on the placeholders' ids, on their number, or on the form of pixels.
    """
    check_ids(source, processor, adapter)
    config, images = adapter.model.config, processor.image_processor
    for name in SAME:
        ours, theirs = getattr(config, name, None), getattr(images, name, None)
        if ours is not None and theirs is not None and sorted(map(list, ours)) != sorted(map(list, theirs)):
            raise UserError(
                f"{source}: {name} is {theirs} in the image processor and {ours} in config.json, so that images would "
                f"be cut in two ways. {REMEDY}"
            )
    failures = []
    for width, height in PICTURES:
        try:
            inputs = processed(processor, noise((width, height)))
        except Exception as error:  # processors raise whatever they stumble over; some refuse narrow pictures
            failures.append(reason(error))
            continue
        try:
            problem = mismatch(adapter, inputs)
        except NotImplementedError:  # an operation whose result depends on values
            return False
        if problem is not None:
            raise UserError(
                f"{source}: processor and model disagree on images: of a picture of {width}x{height} pixels {problem}"
                f"{_differences(processor, config)}. {REMEDY}"
            )
    if len(failures) == len(PICTURES):
        raise UserError(f"{source}: the processor encodes no picture ({failures[0]}). {REMEDY}")
    return True


def check_ids(source: str, processor: Any, adapter: ModelAdapter) -> None:
    """Check that the tokenizer has the processor's placeholders, with the ids of the model's configuration.

    Raises:
        UserError: it lacks that of images, or an id differs.
    """
    tokenizer, config = processor.tokenizer, adapter.model.config
    for name in VISUAL_TOKENS:
        token, expected = getattr(processor, name, None), getattr(config, f"{name}_id", None)
        if token is None or expected is None:
            continue
        found = tokenizer.convert_tokens_to_ids(token)
        if found is None or (found == tokenizer.unk_token_id and token != tokenizer.unk_token):
            if name == VISUAL_TOKENS[0]:
                raise UserError(
                    f"{source}: the tokenizer lacks the processor's placeholder of images, {token!r}; expected it as "
                    f"token {expected}, the {name}_id of config.json. {REMEDY}"
                )
        elif found != expected:
            raise UserError(
                f"{source}: the placeholder {token!r} of the processor is token {found}, but {name}_id in config.json "
                f"is {expected}. {REMEDY}"
            )


def mismatch(adapter: ModelAdapter, inputs: Mapping[str, Tensor]) -> str | None:
    """Return the disagreement of processor and model on one prompt; None without any.

    Args:
        adapter: that of the model, on the meta device or with weights.
        inputs: the processor's output for the prompt, on the CPU.

    Raises:
        NotImplementedError: the model is on the meta device, and its tower needs values.
    """
    ids = torch.tensor(adapter.visual_token_ids)
    written = int(torch.isin(inputs["input_ids"].cpu(), ids).sum())
    try:
        made = _made(adapter.model, inputs)
    except Exception as error:  # towers raise whatever pixels of a wrong form lead to
        if adapter.model.device.type == "meta" and not _runs_without_weights(adapter):
            raise NotImplementedError(str(error)) from error
        return f"the processor makes pixels that the model's tower does not take ({reason(error)})"
    if made is None or made == written:
        return None
    return f"the processor writes {written} placeholders and the model makes {made} tokens"


def _runs_without_weights(adapter: ModelAdapter) -> bool:
    """Check whether the tower takes random pixels of the right form on the meta device."""
    try:
        image = adapter.random_image(*adapter.image_of(adapter.usual_tokens), torch.Generator())
        _made(adapter.model, image)
    except Exception:  # whatever an operation without values leads to
        return False
    return True


@torch.no_grad()
def _made(model: Any, inputs: Mapping[str, Tensor]) -> int | None:
    """Return the number of tokens that a model makes of the images of a prompt; None if it has no function for it."""
    encode: Callable[..., Any] | None = getattr(model, "get_image_features", None)
    if encode is None or "pixel_values" not in inputs:
        return None
    names = inspect.signature(encode).parameters
    images = {name: value for name, value in inputs.items() if name in names and name not in ("input_ids", "labels")}
    images = {
        name: value.to(model.device, model.dtype) if value.is_floating_point() else _placed(value, model.device)
        for name, value in images.items()
    }
    with _ShapesOnly():
        features = encode(**images, return_dict=True).pooler_output
    parts = [features] if torch.is_tensor(features) else list(features)
    return sum(part.numel() // part.shape[-1] for part in parts)


def _placed(value: Tensor, device: torch.device) -> Tensor:
    """Move sizes to a device that has values; on the meta device the tower could not read them."""
    return value if device.type == "meta" else value.to(device)


class _ShapesOnly(TorchFunctionMode):
    """Lets a model on the meta device run on sizes that have values: whatever meets a meta tensor becomes one.

    Attention, norms and activations are replaced by their shapes, which saves most of the time.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch."""
        given = (args, kwargs or {})
        if any(isinstance(one, Tensor) and one.is_meta for one in tree_leaves(given)):
            if func is scaled_dot_product_attention and len(args) >= 3:
                return args[0].new_empty((*args[0].shape[:-1], args[2].shape[-1]))
            if func in SHAPE_KEPT and args:
                return _without_values(args[0]).new_empty(args[0].shape)
            given = tree_map_only(Tensor, _without_values, given)
        return func(*given[0], **given[1])


def _without_values(one: Tensor) -> Tensor:
    return one if one.is_meta else one.to("meta")


def _differences(processor: Any, config: Any) -> str:
    """Return the settings that processor and configuration hold with different values, as a clause."""
    model = {**config.to_dict(), **getattr(config, "vision_config", config).to_dict()}
    ours = {**processor.image_processor.to_dict(), **processor.to_dict()}
    found = []
    for name, value in ours.items():
        other = ALIKE.get(name, name)
        theirs = model.get(other)
        if isinstance(value, (bool, int, float, str)) and theirs is not None and _number(theirs) != _number(value):
            found.append(f"{name} {value} and {other} {theirs}")
    return f"; they have {', '.join(found)}" if found else ""


def _number(value: Any) -> Any:
    """Return the number of a square size that has two equal sides."""
    return value[0] if isinstance(value, (list, tuple)) and len(set(value)) == 1 else value
