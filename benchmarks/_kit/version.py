"""Version of the VLMEvalKit that is imported, which need not be the one that pip installed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from uniprune.evaluation.environment import git_revision
from uniprune.utils.hashing import files_hash

DISTRIBUTIONS = ("ms-vlmeval", "vlmeval")
"""Names under which the package `vlmeval` is published."""
CODE = (
    *("dataset/image_base.py", "dataset/image_mcq.py", "dataset/image_vqa.py", "dataset/image_yorn.py"),
    *("dataset/miabench.py", "dataset/refcoco.py", "dataset/utils/*.py", "utils/*.py", "smp/*.py"),
)
"""Files that make its prompts and scores here."""


def kit_version(root: Path, code: Sequence[str] = CODE) -> str:
    """Return the version of the package in a folder: `ms-vlmeval 0.0.20 (code 0123456789abcdef)`.

    Without metadata of that folder it is the commit of the checkout around it, if there is one. The hash of its code
    tells apart edited copies, and folders that nothing else names.
    """
    files = {file for pattern in code for file in root.glob(pattern)}
    digest = files_hash((file.relative_to(root).as_posix(), file) for file in files)
    return f"{_installed(root) or _checkout(root) or 'VLMEvalKit'} (code {digest})"


def _installed(root: Path) -> str | None:
    """Return name and version of the distribution that put the package there, with its commit if pip stored one."""
    for found in (one for name in DISTRIBUTIONS for one in distributions(name=name)):
        if Path(str(found.locate_file("vlmeval"))).resolve() == root.resolve():
            return f"{found.metadata['Name']} {found.version}{_commit(found)}"
    return None


def _commit(found: Distribution) -> str:
    """Return ` at COMMIT` for a distribution that pip installed from a repository, else nothing."""
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id", "")
    return f" at {commit[:12]}" if commit else ""


def _checkout(root: Path) -> str | None:
    """Return the commit of the checkout that the package is in, None outside one."""
    commit = git_revision(root.parent)
    return f"VLMEvalKit {commit}" if commit else None
