"""vLLM's worker on a CPU, with one step that it leaves out."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models.interfaces import supports_multimodal_pruning
from vllm.v1.worker import cpu_worker


class CPUWorker(cpu_worker.CPUWorker):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """Worker whose model runner calls `recompute_mrope_positions`.

    In vLLM 0.32 `GPUModelRunner.load_model` sets the flag for that; `CPUModelRunner.load_model` overrides it and does
    not, so the channels with positions that a model appends are never taken off.
    """

    def load_model(self, **kwargs: Any) -> None:
        """Load the model and set the flag."""
        super().load_model(**kwargs)
        runner = self.model_runner
        config = runner.model_config.multimodal_config
        runner.is_multimodal_pruning_enabled = bool(
            config and config.is_multimodal_pruning_enabled() and supports_multimodal_pruning(runner.get_model())
        )
