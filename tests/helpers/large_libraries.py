"""Import what takes seconds to import, once, before `prefork` forks; nothing of this repository stays imported."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys

import psutil

from uniprune.utils.torchvision_compat import ensure_torchvision

# Forks lack the threads that OpenMP and pyarrow's allocator would start at import.
os.environ.update(OMP_NUM_THREADS="1", JE_ARROW_MALLOC_CONF="background_thread:false")
FAMILIES = ("internvl", "llava", "llava_next", "qwen2_5_vl", "qwen3_vl")
NAMES = (
    *("latex2sympy2_extended", "matplotlib.pyplot", "pandas", "peft", "pydantic.main", "rich.console"),
    *("scipy.stats", "statsmodels.stats.multitest", "torch", "torch._dynamo", "transformers", "validators"),
    *(f"transformers.models.{family}.modeling_{family}" for family in FAMILIES),
)

logging.disable(logging.WARNING)  # bitsandbytes misses an optional package
ensure_torchvision()
for name in NAMES:
    importlib.import_module(name)
logging.disable(logging.NOTSET)
for name in [name for name in sys.modules if name.partition(".")[0] == "uniprune"]:
    del sys.modules[name]
if psutil.Process().num_threads() > 1:
    raise RuntimeError("a library starts threads at its import; forks would lack them")
gc.freeze()  # a collection in a fork would copy every page
