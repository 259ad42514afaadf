"""Official tables of video datasets: compared with the md5 that VLMEvalKit states; downloaded by the kit only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from uniprune.errors import UserError
from uniprune.evaluation.dataset import DataFile

from .official import file_md5
from .task import Task
from .video_tasks import MD5_FIELD, REPOSITORY


@dataclass(frozen=True)
class VideoFiles:
    """Table and videos of one registered dataset (a `uniprune.evaluation.dataset.Source`)."""

    name: str
    task: Task

    def path(self, data_dir: Path) -> Path:
        """Return the table's path, in a folder as the kit prepares it."""
        return data_dir / self.task.kit_name / f"{self.task.kit_name}.tsv"

    def published(self) -> str:
        """Return the md5 of the table, from the kit's class.

        Raises:
            UserError: VLMEvalKit is not installed, or states none.
        """
        from .boot import TESTED
        from .video_kit import boot_videos

        kit = boot_videos()
        md5 = getattr(kit.dataset_class(self.task.module, self.task.cls), MD5_FIELD.get(self.name, "MD5"), None)
        if not isinstance(md5, str):
            raise UserError(f"{self.name}: {kit.version} has no md5 of {self.task.kit_name}; {TESTED}")
        return md5

    def inspect(self, data_dir: Path) -> DataFile:
        """Check the table; videos are looked for where the benchmark is opened."""
        path = self.path(data_dir)
        if not path.is_file():
            return DataFile(path, "absent")
        size, found = path.stat().st_size, file_md5(path)
        try:
            expected = self.published()
        except UserError:  # VLMEvalKit is not installed: nothing to compare with
            return DataFile(path, "unchecked", size, found)
        return DataFile(path, "ok" if found == expected else "altered", size, found)

    def fetch(self, data_dir: Path) -> DataFile:
        """Return the table if it is there.

        Raises:
            UserError: it is absent or altered; the message says how the kit prepares it.
        """
        present = self.inspect(data_dir)
        if present.state in ("ok", "unchecked"):
            return present
        raise UserError(f"{self.name}: {present.path} is {present.state}; {self.remedy(data_dir)}")

    def remedy(self, data_dir: Path) -> str:
        """Return how a user gets table and videos."""
        kit_name = self.task.kit_name
        return (
            f'UniPrune does not download videos: let VLMEvalKit prepare them, python -c "from vlmeval.dataset import '
            f"{self.task.cls}; print({self.task.cls}('{kit_name}', nframe=8).data_root)\" (Hugging Face dataset "
            f"{REPOSITORY[self.name]}), and link the folder that it prints as {data_dir / kit_name}"
        )
