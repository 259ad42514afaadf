"""Files of a checkpoint: a folder with all its parts, or the hub and its cache."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from uniprune.errors import UserError
from uniprune.modeling.catalog import ModelEntry, catalog
from uniprune.utils.hashing import files_hash

PARTS = {
    "a configuration": {"config.json"},
    "weights": {"model.safetensors", "model.safetensors.index.json"},
    "an image processor": {"processor_config.json", "preprocessor_config.json"},
    "a tokenizer": {"tokenizer.json", "tokenizer.model", "vocab.json"},
}
"""Part of a checkpoint -> the files that may hold it."""
WEIGHTS = (*sorted(PARTS["weights"]), "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files of the hub, one of which every checkpoint has."""


def fingerprint(folder: Path) -> str:
    """Hash the names and contents of a model folder's weights, configuration and processor files."""
    suffixes = (".safetensors", ".json", ".jinja", ".model", ".txt")
    return files_hash((path.name, path) for path in folder.iterdir() if path.suffix in suffixes)


def check_folder(folder: Path) -> None:
    """Raise UserError for a part that a folder lacks, before transformers fails in its own words."""
    if not folder.is_dir():
        raise UserError(f"model folder {folder} does not exist")
    files = {path.name for path in folder.iterdir()}
    for part, names in PARTS.items():
        if not files & names:
            raise UserError(
                f"model folder {folder} has no {part.split(' ', 1)[-1]} (expected {' or '.join(sorted(names))}); save "
                "the whole checkpoint with model.save_pretrained(folder) and processor.save_pretrained(folder)"
            )


def source_of(name: str) -> str:
    """Return the source to load a folder or hub id from: itself, or the cached copy if the hub is unreachable.

    The hub gets one request: transformers would retry for half a minute per file, even for optional files. If the hub
    replies at all, transformers explains the reply better.

    Raises:
        UserError: the hub cannot be reached, and configuration or weights of this id are not in the local cache.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    if Path(name).is_dir():
        return name
    config, *weights = (try_to_load_from_cache(name, file) for file in ("config.json", *WEIGHTS))
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"))
    except HfHubHTTPError:
        return name
    except Exception as error:  # of whichever HTTP library the hub client uses, or its own for offline mode
        if isinstance(config, str) and any(isinstance(path, str) for path in weights):
            return str(Path(config).parent)
        raise UserError(
            f"hub id {name!r} is not in the local hub cache, and the hub cannot be reached "
            f"({' '.join(str(error).split())[:200]}). {remedy(name)}"
        ) from error
    return name


def commit_of(source: str) -> str | None:
    """Return the commit of a hub checkpoint whose configuration is cached; None otherwise."""
    from huggingface_hub import try_to_load_from_cache
    from transformers.utils.hub import extract_commit_hash

    path = try_to_load_from_cache(source, "config.json")
    commit: str | None = extract_commit_hash(path, None) if isinstance(path, str) else None
    return commit


def remedy(source: str) -> str:
    """Explain how to get a checkpoint of the hub onto a machine that cannot reach it."""
    names = [entry.name for entry in catalog().values() if entry.source == source]
    like = f", with `--like {names[0]}` for the settings of {names[0]}" if names else ""
    return (
        f"Without network access: give the path of a folder that holds the checkpoint instead{like}; or, on a machine "
        f"with a network, run `hf download {source}` (`huggingface-cli download` in older versions) and copy its cache "
        "(HF_HOME) here"
    )


def required_commit(entry: ModelEntry) -> str:
    """Return the commit of a hub checkpoint whose configuration has been fetched."""
    commit = commit_of(entry.source)
    if commit is None:
        raise UserError(
            f"{entry.source} has no commit in the local hub cache; fetch it with `hf download {entry.source}`"
        )
    return commit


def fetch(factory: Callable[..., Any], entry: ModelEntry, source: str, **kwargs: Any) -> Any:
    """Call `factory(source, …)` without running code of the checkpoint; re-raise its failures as UserError."""
    from safetensors import SafetensorError

    try:
        return factory(source, trust_remote_code=False, **kwargs)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{entry.source} has Python code of its own, which is never run. {supported(entry)}"
            ) from error
        reason = " ".join(str(error).split())[:300]
        if entry.folder is not None:
            raise UserError(f"model folder {entry.folder} cannot be loaded: {reason}") from error
        raise UserError(
            f"model {entry.name!r} cannot be loaded: tried hub id {entry.source!r} and the local hub cache ({reason}). "
            f"{remedy(entry.source)}"
        ) from error


def supported(entry: ModelEntry) -> str:
    """Name the catalogued checkpoint whose name is nearest: the one in the format of transformers, often with "-hf"."""
    sources = {Path(one.source).name: one.source for one in catalog().values() if one.folder is None}
    near = get_close_matches(Path(entry.source).name, sources, n=1, cutoff=0.4) or sources
    return f"Use a checkpoint in the format of transformers, such as {', '.join(sources[name] for name in near)}"
