"""Settings of runs in words, for tables."""

from __future__ import annotations

from uniprune.results.comparison import SeedGroup
from uniprune.results.records import USUAL_FRAMES


def all_settings(group: SeedGroup) -> str:
    """Return what runs differ in beside method, ratio, layer and protocol: the fields the user set come first."""
    passed = [f"{name}={value}" for name, value in group.setup.method.passed.items() if not name.endswith(".layer")]
    return " ".join([*passed, shared_settings(group)])


def shared_settings(group: SeedGroup) -> str:
    """Return what runs of all methods share to be compared: prompts, images, limits, precision, kernel, device."""
    setup = group.setup
    prompts = [f"prompts={setup.prompts}"] * (setup.prompts != "benchmark")
    prompts += [f"images={setup.images}"] * (setup.images != "checkpoint")
    prompts += [f"like={group.runs[0].model.like}"] * (group.runs[0].model.like is not None)
    images = [f"image-decoding={setup.image_decoding}"] * (setup.image_decoding != "kit")
    has_videos = any(entry.ledger is not None and entry.ledger.frames for entry in group.entries)
    if has_videos or (setup.frames, setup.fps) != (USUAL_FRAMES, None):
        images.append(f"frames={setup.frames}" if setup.fps is None else f"fps={setup.fps:g}")
    limits = [f"limit={setup.limit}"] * (setup.limit is not None)
    limits += [f"max-new-tokens={setup.max_new_tokens}"] * (setup.max_new_tokens is not None)
    kernels = [setup.attention, *[f"tower-attention={setup.tower_attention}"] * (setup.tower_attention is not None)]
    served = [f"served={setup.serving.engine}-{setup.serving.version}"] if setup.serving else []
    return " ".join([*prompts, *images, *limits, setup.dtype, *kernels, setup.device, *served])
