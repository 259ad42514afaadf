"""VLMEvalKit's dataset object over a table in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from . import images
from .boot import session

if TYPE_CHECKING:
    from .boot import Kit
    from .table import KitTable
    from .task import Task


PATHS = "image_path"


def in_memory(kit: Kit, task: Task, table: KitTable) -> Any:
    """Return the kit's dataset object over a table, by methods that its subclasses may override."""
    base = kit.dataset_class(task.module, task.cls)
    paths = [] if PATHS in task.columns else [PATHS]  # images are here; where they once were is of no use
    rows = table.frame.drop(columns=paths, errors="ignore")

    class InMemory(base):  # type: ignore[misc, valid-type]
        def load_data(self, dataset: str) -> Any:
            """Return the rows, with an image that is none: the kit would read lists and follow references itself."""
            return task.loaded(kit, rows.assign(image="x" * (images.REFERENCE + 1)), super().load_data)

        def post_build(self, dataset: str) -> None:
            shown = [found[0] if len(found) == 1 else found for found in table.visuals]
            self.data["image"] = pd.Series(shown, index=self.data.index, dtype=object)

        def dump_image(self, line: Any) -> list[str]:
            """Return the base64 texts themselves: the kit's cache of PNG files goes stale when a TSV changes."""
            return line["image"] if isinstance(line["image"], list) else [line["image"]]

        def _ensure_metadata_ready(self) -> None:
            """Leave the file alone: RefCOCO's class downloads it again while it scores."""

    with session():
        return InMemory(dataset=task.kit_name)
