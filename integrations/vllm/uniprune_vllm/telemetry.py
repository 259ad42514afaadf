"""What a server publishes at /metrics, beside vLLM's own metrics: what it serves, and where its time goes.

`python run.py run --backend vllm` reads the first, so that no answer is stored under the name of another method;
`serve-bench` reads the second. Tower and selection run in another process than the one that answers /metrics: their
times arrive there if the server is started with PROMETHEUS_MULTIPROC_DIR set to an empty folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from prometheus_client import Counter, Gauge
from vllm import __version__ as version

from uniprune.errors import UserError
from uniprune.evaluation.code_hash import code_hash
from uniprune.evaluation.environment import processor_name
from uniprune.evaluation.method_spec import plain
from uniprune.modeling.checkpoints import fingerprint
from uniprune.pruning.base import Pruner
from uniprune.registry import METHODS

LABELS = ("method", "resolved", "code", "weights", "dtype", "device", "machine", "version")
SERVED = Gauge("uniprune_served_info", "Method and checkpoint of this server", LABELS, multiprocess_mode="mostrecent")
SECONDS = {
    "tower": Counter("uniprune_tower_seconds", "Seconds in tower and projector"),
    "selection": Counter("uniprune_selection_seconds", "Seconds in which tokens were chosen"),
}
IMAGES = Counter("uniprune_images", "Images that were encoded")


def announce(model_config: Any, pruner: Pruner) -> None:
    """Publish what this server serves.

    Args:
        model_config: vLLM's, complete.
        pruner: the method, with the positions that are really served.
    """
    name = next(name for name in METHODS.names() if METHODS.get(name) is type(pruner))
    on_gpu = torch.cuda.is_available()
    labels = {
        "method": name,
        "resolved": json.dumps(plain({f.name: getattr(pruner, f.name) for f in dataclasses.fields(pruner)})),
        "code": code_hash([type(pruner)]),
        "weights": weights_of(model_config),
        "dtype": str(model_config.dtype).removeprefix("torch."),
        "device": "cuda" if on_gpu else "cpu",
        "machine": torch.cuda.get_device_name() if on_gpu else processor_name(),
        "version": version.partition("+")[0],
    }
    SERVED.labels(**labels).set(1)


def weights_of(model_config: Any) -> str:
    """Return the identity of a checkpoint as runs have it: a hash of the folder's files, or the hub's commit.

    Raises:
        UserError: the commit is unknown.
    """
    folder = Path(model_config.model)
    if folder.is_dir() and not (commit := _snapshot(folder)):
        return fingerprint(folder)
    commit = commit if folder.is_dir() else getattr(model_config.hf_config, "_commit_hash", None)
    if commit is None:
        raise UserError(f"the commit of {model_config.model} is unknown; give the server --revision, or a folder")
    return str(commit)


def _snapshot(folder: Path) -> str | None:
    """Return the commit of a folder in the hub's cache (…/snapshots/<commit>); None for any other."""
    return folder.name if folder.parent.name == "snapshots" else None


class Spans:
    """Times of the parts of an image's encoding.

    Measuring waits for the GPU, so it happens only where /metrics can show the result.
    """

    def __init__(self) -> None:
        self._active = bool(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))  # prometheus_client's own variable

    @contextmanager
    def measure(self, name: str, images: int = 0) -> Iterator[None]:
        """Add the seconds of the block to a span.

        Args:
            name: "tower" or "selection".
            images: images that are done after the block.
        """
        if not self._active:
            yield
            return
        start = _now()
        yield
        SECONDS[name].inc(_now() - start)
        IMAGES.inc(images)


def _now() -> float:
    """Return the time once the GPU has done everything that was started."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()
