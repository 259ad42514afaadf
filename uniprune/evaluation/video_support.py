"""Models that can be asked about videos: what is required of family, processor and chat template."""

from __future__ import annotations

from collections.abc import Sequence

from uniprune.errors import UserError
from uniprune.evaluation.dataset import Request
from uniprune.evaluation.rendering import ChatTemplate
from uniprune.modeling.loading import LoadedModel
from uniprune.registry import MODELS


def check_videos(loaded: LoadedModel, benchmark: str, requests: Sequence[Request], shares_features: bool) -> None:
    """Check that a model can be asked the rows of a benchmark, if they are about videos.

    Args:
        loaded: the model; an outline without weights is enough.
        benchmark: its name.
        requests: its rows.
        shares_features: whether image features are shared between methods.

    Raises:
        UserError: its family, processor or chat template takes no videos, or features are to be shared.
    """
    if not any(request.videos for request in requests):
        return
    if shares_features:
        raise UserError(f"--share-vision shares features of images, and {benchmark} asks about videos; leave it out")
    if lacking := _lacking(loaded):
        families = ", ".join(name for name in MODELS.names() if MODELS.get(name).videos)
        raise UserError(
            f"{benchmark} asks about videos, which {loaded.entry.name} cannot be shown: {lacking}; leave {benchmark} "
            f"out, or choose a model of {families}"
        )


def _lacking(loaded: LoadedModel) -> str:
    """Return what a model lacks for videos; empty if nothing."""
    processor = loaded.processor
    if getattr(processor, "video_processor", None) is None or not getattr(processor, "video_token", None):
        return f"its processor, {type(processor).__name__}, is one without video"
    if not loaded.adapter.videos:
        return f"videos of family {loaded.adapter.model.config.model_type} are not supported"
    if not ChatTemplate(processor).writes("video"):
        return "its chat template writes no placeholder for a video"
    return ""
