"""GLM-4.1V, GLM-4.5V and GLM-4.6V: a convolution merges patches before the projector; M-RoPE on half a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from uniprune.modeling.adapter import Tried
from uniprune.modeling.image_grouping import ClipsOfGrids, Grouping
from uniprune.modeling.messages import RawQuestion
from uniprune.modeling.random_images import Size
from uniprune.modeling.shown_areas import WHOLE, Shown
from uniprune.modeling.tiny import IMAGE, IMAGE_END, IMAGE_START, VIDEO, VISION
from uniprune.pruning.view import Grid
from uniprune.registry import register_model

from .qwen2_5_vl import PATCH
from .qwen2_vl import Qwen2VL, TinyQwen2VL


class TinyGlm4v(TinyQwen2VL):
    """Four blocks; images of any size."""

    kind: ClassVar[str] = "Glm4vConfig"

    def config(self, text: dict[str, Any]) -> Any:
        """Glm4vConfig, or that of a subclass's `kind`."""
        import transformers

        rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
        vision = {"depth": 4, "num_heads": 4, "patch_size": PATCH, "image_size": 8 * PATCH}
        return getattr(transformers, self.kind)(
            vision_config={**VISION, **vision, "out_hidden_size": text["hidden_size"]},
            text_config={"rope_parameters": rope, **text},
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            image_start_token_id=IMAGE_START,
            image_end_token_id=IMAGE_END,
            video_start_token_id=IMAGE_END - 1,
            video_end_token_id=IMAGE_END - 2,
            tie_word_embeddings=False,
        )

    def clip_ids(self, tokens: int) -> list[int]:
        """Marks and a time stamp around every step, whose placeholders are those of images."""
        steps = [one for stamp in (20, 21) for one in (IMAGE_START, *[IMAGE] * tokens, IMAGE_END, stamp)]
        return [IMAGE_END - 1, *steps, IMAGE_END - 2]


class TinyGlm4vMoe(TinyGlm4v):
    """A dense layer, then two experts of four and a shared one."""

    kind = "Glm4vMoeConfig"

    def config(self, text: dict[str, Any]) -> Any:
        """Glm4vMoeConfig."""
        experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
        return super().config({**experts, **text})


class TinyGlm46v(TinyGlm4v):
    """The shell around GLM-4.1V's parts."""

    kind = "Glm46VConfig"


@register_model("glm4v", tiny=TinyGlm4v)
class Glm4v(Qwen2VL):
    """GLM-4.1V (arXiv 2507.01006): whole frames, four patches to a token before the projector, a gated MLP."""

    tried: ClassVar[Tried] = {"text model": ("glm4v_text",), "tower": ("glm4v_vision",)}
    videos: ClassVar[bool] = True
    mixes: ClassVar[bool] = False  # both have the placeholders of images, so the model itself cannot

    def prompt(self, asked: RawQuestion) -> Sequence[str | int] | None:
        """The benchmark's, and a request for yes or no where it has none."""
        if asked.benchmark not in ("HallusionBench", "POPE"):
            return None
        return [*range(len(asked.images)), asked.text, "Please answer yes or no."]

    def id_arguments(self, ids: Tensor) -> dict[str, Tensor]:
        """1 at placeholders of images and 2 at those between the marks of a video, for M-RoPE."""
        config = self.model.config
        inside = (ids == config.video_start_token_id).cumsum(-1) > (ids == config.video_end_token_id).cumsum(-1)
        return {"mm_token_type_ids": (ids == config.image_token_id).int() * (1 + inside.int())}

    def image_grouping(self) -> Grouping:
        """The tower encodes the frames of a video one by one, and their placeholders are those of images."""
        config = self.model.config
        return ClipsOfGrids(config.video_start_token_id, config.video_end_token_id)

    def clip_areas(self, processor: Any, size: Size, frames: int) -> Shown:
        """Whole frames, two to a step in time, each of which is a grid."""
        step = processor.video_processor.temporal_patch_size
        return Shown((WHOLE,) * -(-frames // step), frames, step)

    def token_parts(self) -> Sequence[nn.Module]:
        """The convolution that merges the patches of a token."""
        return [self.vision.downsample]

    def features(self, entering: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
        """Whole tokens, which the convolution has merged."""
        return self._raster(entering, grids)

    def project(self, features: Tensor) -> Tensor:
        """The projector treats tokens one by one."""
        tokens: Tensor = self.projector.forward(features)
        return tokens


@register_model("glm4v_moe", tiny=TinyGlm4vMoe)
class Glm4vMoe(Glm4v):
    """GLM-4.5V and GLM-4.6V (arXiv 2507.01006): the same tower on a mixture of experts."""

    tried: ClassVar[Tried] = {"text model": ("glm4v_moe_text",), "tower": ("glm4v_moe_vision",)}


@register_model("glm46v", tiny=TinyGlm46v)
class Glm46v(Glm4v):
    """GLM-4.6V's own class: a shell around the parts of GLM-4.1V or GLM-4.5V."""

    tried: ClassVar[Tried] = {"text model": ("glm4v_text",), "tower": ("glm4v_vision",)}
