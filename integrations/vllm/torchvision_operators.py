"""Declare torchvision's two compiled operators when it is first imported, in every process of an environment.

Beside a CPU build of torch the registry's torchvision, built for CUDA, cannot load them, and vLLM imports it before any
plug-in is loaded. Run once by the environment's Python, this file copies itself there, to be loaded at every start;
`uniprune.utils.torchvision_compat` explains why declaring them is enough.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from types import ModuleType


class Declaring(importlib.abc.MetaPathFinder):
    """A finder that declares the operators, once, and finds nothing."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Declare the operators if torchvision is looked for."""
        if name != "torchvision":
            return
        sys.meta_path.remove(self)
        import torch

        for operator in ("torchvision::nms", "torchvision::qnms"):
            torch.library.define(operator, "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


if __name__ == "__main__":
    import shutil
    import sysconfig
    from pathlib import Path

    site = Path(sysconfig.get_path("purelib"))
    shutil.copy(__file__, site / "torchvision_operators.py")
    (site / "torchvision_operators.pth").write_text("import torchvision_operators\n", encoding="utf-8")
else:
    sys.meta_path.insert(0, Declaring())
