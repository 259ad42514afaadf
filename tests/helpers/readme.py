"""README's example of library use, for a model and a photo that need no download."""

from __future__ import annotations

import re

from tests.helpers.paths import ROOT

HUB_ID = "llava-hf/llava-1.5-7b-hf"
PREPARATION = """\
from PIL import Image
from uniprune.utils.torchvision_compat import ensure_torchvision

ensure_torchvision()  # torch of the test environment may be a CPU build
Image.new("RGB", (640, 480), (200, 30, 30)).save("photo.jpg")
"""
"""Writes the photo to the working directory."""


def library_example(model: str) -> str:
    """Return the first Python block with the folder `model` in place of the hub id."""
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    code = block[1]
    assert HUB_ID in code
    return code.replace(HUB_ID, model)
