"""Settings of an engine that serves one of the architectures, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vllm.logger import init_logger
from vllm.model_executor.models.config import VerifyAndUpdateConfig
from vllm.platforms import current_platform

from uniprune.errors import UnsupportedError, UserError
from uniprune.modeling.checkpoints import PARTS
from uniprune.pruning.base import Pruner
from uniprune_vllm.settings import KEY, has_axes, method_of
from uniprune_vllm.telemetry import announce

SWITCH = 0.5
"""A `video_pruning_rate` above 0 makes vLLM call `recompute_mrope_positions`; for images its value does nothing."""

logger = init_logger(f"vllm.{__name__}")


class PrunedModelConfig(VerifyAndUpdateConfig):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """Checks and changes of an engine's configuration; vLLM calls them by the name of the architecture."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        """Check the method, and make room for the positions it needs.

        Raises:
            UserError: the method or its fields are impossible.
            UnsupportedError: they cannot be served.
        """
        config, images = model_config.hf_config, model_config.multimodal_config
        pruner = method_of(config)
        check_images(model_config)
        if not has_axes(config) and pruner.positions == "original":
            _add_axes(config, model_config.get_head_size())
        if pruner.positions != "compact":
            images.video_pruning_rate = SWITCH
        announce(model_config, pruner)
        logger.info("Images are pruned by %s", described(pruner))

    @staticmethod
    def verify_and_update_config(vllm_config: Any) -> None:
        """Choose a worker that moves positions, where vLLM's own forgets to.

        Raises:
            UnsupportedError: the vision tower runs in a way in which it cannot be watched, and the method reads it.
        """
        parallel = vllm_config.parallel_config
        if method_of(vllm_config.model_config.hf_config).vision_layers:
            check_tower(parallel.tensor_parallel_size, vllm_config.compilation_config.compile_mm_encoder)
        if current_platform.is_cpu() and parallel.worker_cls == "auto":
            parallel.worker_cls = "uniprune_vllm.cpu_worker.CPUWorker"


def check_images(model_config: Any) -> None:
    """Refuse to take image features in place of images, and folders without image processor.

    Raises:
        UserError: naming which.
    """
    if model_config.multimodal_config.enable_mm_embeds:
        raise UnsupportedError("--enable-mm-embeds: features of images cannot be pruned here; send images")
    folder, names = Path(model_config.model), PARTS["an image processor"]
    if folder.is_dir() and not any((folder / name).is_file() for name in names):
        raise UserError(
            f"model folder {folder} has no image processor (expected {' or '.join(sorted(names))}); save it with "
            "processor.save_pretrained(folder)"
        )


def check_tower(ranks: int, compiled: bool) -> None:
    """Refuse vision towers of which a process has a part of the heads only, or that are compiled.

    Raises:
        UnsupportedError: naming which.
    """
    if ranks > 1:
        raise UnsupportedError(
            f"--tensor-parallel-size {ranks}: the method reads all heads of the vision tower, of which a process has a "
            "part only; use 1, or a method that reads nothing of the tower"
        )
    if compiled:
        raise UnsupportedError("compile_mm_encoder: the method reads the vision tower, whose hooks compiled code skips")


def described(pruner: Pruner) -> str:
    """Return a method's name and the fields that every row of a table should show."""
    return f"{type(pruner).__name__} at ratio {pruner.ratio:g}, positions {pruner.positions}, scope {pruner.scope}"


def _add_axes(config: Any, head_dim: int) -> None:
    """Have vLLM carry positions of three axes for a model with one, and its language model read the second.

    Raises:
        UnsupportedError: vLLM's rotary embedding of this kind has one axis only.
    """
    rope = config.get_text_config().rope_parameters
    if (kind := rope.get("rope_type", "default")) != "default":
        raise UnsupportedError(
            f"positions='original' needs rotary positions of type default, but {config.model_type} has {kind!r}; use "
            "positions='compact'"
        )
    half = int(head_dim * rope.get("partial_rotary_factor", 1.0)) // 2
    rope.update({"mrope_section": [0, half, 0], KEY: True})
