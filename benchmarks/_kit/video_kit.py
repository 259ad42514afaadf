"""The parts of VLMEvalKit that prompt and score its video datasets; they import OpenCV and torchvision."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from uniprune.errors import UserError
from uniprune.utils.torchvision_compat import ensure_torchvision

from .boot import TESTED, Kit, boot, stand_ins, untouched
from .repairs import repaired
from .replacing import replaced
from .version import CODE, kit_version

MODULES = ("videomme", "mvbench", "mlvu", "longvideobench")
VIDEO_CODE = ("dataset/video_base.py", "dataset/video_concat_dataset.py", *(f"dataset/{name}.py" for name in MODULES))


@dataclass(frozen=True)
class VideoKit(Kit):
    """The kit with its video datasets.

    Attributes:
        videomme: module of `VideoMME`.
        mvbench: module of `MVBench_MP4`.
        mlvu: module of `MLVU_MCQ`.
        longvideobench: module of `LongVideoBench`.
        letters: functions that read an option's letter from an answer, by module.
        matches: MVBench's rule for an answer and a right option.
    """

    videomme: Any
    mvbench: Any
    mlvu: Any
    longvideobench: Any
    letters: dict[str, Any]
    matches: Any


def boot_videos() -> VideoKit:
    """Import VLMEvalKit with its video datasets.

    Raises:
        UserError: it is not installed, or this version of it lacks something that the bridge uses.
    """
    kit = boot()
    ensure_torchvision()
    root = Path(str(sys.modules["vlmeval"].__path__[0]))
    version = kit_version(root, (*CODE, *VIDEO_CODE))
    with untouched(), stand_ins(root):
        try:
            modules = {name: importlib.import_module(f"vlmeval.dataset.{name}") for name in MODULES}
            rules = {name: importlib.import_module(f"vlmeval.dataset.utils.{name}") for name in MODULES}
            return VideoKit(
                **{field.name: getattr(kit, field.name) for field in fields(kit) if field.name != "version"},
                **modules,
                version=version,
                letters={name: rules[name].extract_characters_regex for name in ("videomme", "longvideobench")},
                matches=rules["mvbench"].check_ans,
            )
        except (ImportError, AttributeError) as error:
            raise UserError(f"{version} in {root} cannot show videos: {error}; {TESTED}") from error


@contextlib.contextmanager
def repaired_videos(kit: VideoKit, rows: int) -> Iterator[None]:
    """Replace functions while the kit scores, as `repaired` does.

    `get_file_extension` is a check that refuses pickles, which the kit's own `load` reads; ours calls them TSV.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(repaired(kit, rows))
        for name in MODULES:
            stack.enter_context(replaced(getattr(kit, name), get_file_extension=lambda file: "tsv"))
        yield
