"""Make `import torchvision` work with a torch build that its compiled operators were not built for.

A CPU build of torch with the registry's torchvision (built for CUDA) cannot load torchvision's compiled operators, and
then transformers cannot import a single image processor. None of those operators is used here: pixels are resized by
torch itself. Declaring the two operators that torchvision requires at import is therefore enough, and keeps the image
processors, and so the pixel values and the predictions, of a machine with a matching build. Falling back to the PIL
processors instead would change pixels by up to one grey level at every resize.

Call `ensure_torchvision()` before the first import of transformers' image or vision code.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("torchvision::nms", "torchvision::qnms")


def ensure_torchvision() -> bool:
    """Import torchvision, declaring its operators only if the import fails without. May be called again.

    Returns:
        False if torchvision is not installed.
    """
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declare_operators()
        importlib.import_module("torchvision")
    return True


def _declare_operators() -> None:
    """Declare the missing operators' signatures and forget the half-imported package."""
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in _OPERATORS:
        torch.library.define(operator, _SCHEMA)
