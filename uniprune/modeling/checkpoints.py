"""Files of a checkpoint: a folder with all its parts, or the hub and its cache."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

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
SAFETENSORS = (".safetensors", ".safetensors.index.json")
"""Ends of the names of weights and of their indices. Pickles are never loaded."""
TEMPLATES = "additional_chat_templates"
"""Folder of a checkpoint's further chat templates."""


class Index(BaseModel):
    """An index of weights."""

    weight_map: dict[str, str]
    """Parameter -> the file that holds it."""


def fingerprint(folder: Path) -> str:
    """Hash the names and contents of all files that may be read from a model folder.

    Raises:
        UserError: as for `checkpoint_files`.
    """
    return files_hash(checkpoint_files(folder).items())


def checkpoint_files(folder: Path) -> dict[str, Path]:
    """Return the files that may be read from a model folder, by their names in it.

    These are all files directly in it but hidden ones, the parts of the weights in whichever folder an index names,
    chat templates, and tokenizers in folders of their own. Links are followed: the hub's cache consists of them.

    Raises:
        UserError: a file lies outside the folder, or an index names one that is missing or no safetensors.
    """
    inner = [path for path in _visible(folder) if path.is_dir()]
    tokenizers = PARTS["a tokenizer"] | {"tokenizer_config.json"}
    read = [path for path in inner if path.name == TEMPLATES or any((path / name).exists() for name in tokenizers)]
    paths = [path for one in (folder, *read) for path in _visible(one) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    for index in folder.glob("*.safetensors.index.json"):
        files |= {name: folder / name for name in _shards(index)}
    roots = [folder.resolve()]
    if folder.parent.name == "snapshots":  # of the hub's cache, whose files are links to a folder for each repository,
        roots += [folder.parents[1] / "blobs", folder.parents[2] / "blobs"]  # from there to one for all of them
    for name, path in files.items():
        if not any(path.resolve().is_relative_to(root.resolve()) for root in roots):
            raise UserError(
                f"model folder {folder}: {name} leads out of the folder, to {path.resolve()}; put the file itself "
                "there, so that the folder holds all that is loaded"
            )
    return files


def _visible(folder: Path) -> list[Path]:
    """Return the content of a folder but hidden files, which hold what tools keep for themselves."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _shards(index: Path) -> list[str]:
    """Return the files that an index of weights names.

    Raises:
        UserError: it has another form; or a file lies outside its folder, is missing or no safetensors.
    """
    try:
        names = set(Index.model_validate_json(index.read_bytes()).weight_map.values())
    except ValueError as error:
        reason = ", ".join(part.strip() for part in str(error).splitlines()[:3])
        raise UserError(f"{index} is no index of weights ({reason}); fetch it again") from error
    for name in sorted(names):
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{index} names {name!r}, which lies outside its folder; move the file there")
        if path.suffix != ".safetensors":
            raise UserError(f"{index} names {name!r}; only weights in the format safetensors are loaded")
        if not (index.parent / path).is_file():
            raise UserError(f"{index} names {name!r}, which is missing; fetch the whole checkpoint")
    return sorted(names)


def check_sources(entry: ModelEntry, source: str, config: Any, **kwargs: Any) -> None:
    """Check that all weights of a checkpoint are its own, in the format safetensors, and that its parts are described.

    Args:
        entry: the model.
        source: as of `source_of`.
        config: its configuration.
        kwargs: `revision` and `local_files_only` of the hub.

    Raises:
        UserError: it has an adapter, whose base may be elsewhere and which is left out without peft; its configuration
            names another file of weights; or it lacks the fields of a part, for which transformers would take those of
            a large model.
    """
    from transformers import PretrainedConfig
    from transformers.utils import find_adapter_config_file

    if find_adapter_config_file(source, **kwargs) is not None:
        raise UserError(
            f"{entry.source} has an adapter (adapter_config.json), which is not loaded; merge it into the weights: "
            "peft.PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(other_folder), or remove "
            "it to evaluate the model without it"
        )
    fields, _ = PretrainedConfig.get_config_dict(source, **kwargs)
    lacking = [
        part for part in ("text_config", "vision_config") if part in type(config).sub_configs and part not in fields
    ]
    if lacking and "hidden_size" not in fields:  # some published files have the text model's fields beside the others
        raise UserError(
            f"config.json of {entry.source} has no {' and no '.join(lacking)}; expected the fields of language "
            "model and vision tower. Fetch it again, or save the model with model.save_pretrained(folder)"
        )
    named = getattr(config, "transformers_weights", None)
    if named is not None and (PurePath(named).name != named or not named.endswith(SAFETENSORS)):
        raise UserError(
            f"config.json of {entry.source} names {named!r} as its weights; expected a file of its folder that ends in "
            f"{' or '.join(SAFETENSORS)}"
        )
    if entry.folder is None and Path(source).is_dir():  # a folder of one's own is hashed
        checkpoint_files(Path(source))


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
    config, *weights = (try_to_load_from_cache(name, file) for file in ("config.json", *PARTS["weights"]))
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
    try:
        return factory(source, trust_remote_code=False, **kwargs)
    except UserError:
        raise
    except Exception as error:  # whatever files of a wrong form lead to: missing keys, other types, …
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{entry.source} has Python code of its own, which is never run. {supported(entry)}"
            ) from error
        expected = isinstance(error, (OSError, ValueError, ImportError))
        reason = " ".join(f"{'' if expected else type(error).__name__ + ': '}{error}".split())[:300]
        if entry.folder is not None:
            raise UserError(f"model folder {entry.folder} cannot be loaded: {reason}") from error
        raise UserError(
            f"model {entry.name!r} cannot be loaded: tried hub id {entry.source!r} and the local hub cache ({reason}). "
            f"{remedy(entry.source)}"
        ) from error


def supported(entry: ModelEntry) -> str:
    """Name the catalogued checkpoint whose name is nearest, in the format of transformers; else one of each family."""
    hub = [one for one in catalog().values() if one.folder is None]
    sources = {Path(one.source).name: one.source for one in hub}
    near = get_close_matches(Path(entry.source).name, sources, n=1, cutoff=0.4)
    names = [sources[name] for name in near] or list({one.family: one.source for one in reversed(hub)}.values())[::-1]
    return f"Use a checkpoint in the format of transformers, such as {', '.join(names)}"
