"""Load a model, its processor and its adapter from a catalogue entry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from uniprune.errors import UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.catalog import ModelEntry, catalog
from uniprune.registry import MODELS
from uniprune.utils.hashing import files_hash
from uniprune.utils.torchvision_compat import ensure_torchvision

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PARTS = {
    "a configuration": {"config.json"},
    "weights": {"model.safetensors", "model.safetensors.index.json"},
    "an image processor": {"processor_config.json", "preprocessor_config.json"},
    "a tokenizer": {"tokenizer.json", "tokenizer.model", "vocab.json"},
}
"""Part of a checkpoint -> the files that may hold it."""
WEIGHTS = (*sorted(PARTS["weights"]), "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files of the hub, one of which every checkpoint has."""


@dataclass(frozen=True)
class Placement:
    """Resolved precision, attention kernel and device.

    Attributes:
        dtype: "float32", "float16" or "bfloat16".
        attention: a kernel name of transformers.
        device: "cpu", "cuda", "cuda:1", …, or "balanced" to spread the layers over all GPUs.
    """

    dtype: str
    attention: str
    device: str

    def __str__(self) -> str:
        return f"{self.dtype}, {self.attention}, {self.device}"

    @property
    def kind(self) -> str:
        """Kind of device: "cpu" or "cuda"."""
        return "cuda" if self.device == "balanced" else self.device.split(":")[0]


@dataclass(frozen=True)
class LoadedModel:
    """A model with its processor and adapter.

    Attributes:
        entry: its catalogue entry.
        model: the Hugging Face model in evaluation mode.
        processor: tokenizer and image processor.
        adapter: its layout.
        placement: precision, kernel and device.
        weights: hub commit or hash of the folder.
        source: hub id or folder that everything is loaded from.
    """

    entry: ModelEntry
    model: Any
    processor: Any
    adapter: ModelAdapter
    placement: Placement
    weights: str
    source: str

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.adapter.layers)

    @property
    def image_processor(self) -> dict[str, Any]:
        """Class of the image processor and the settings the catalogue overrides; part of a run's identity."""
        return {"class": type(self.processor.image_processor).__name__, **self.entry.image_processor}


def place(dtype: str = "auto", attention: str = "auto", device: str = "auto") -> Placement:
    """Resolve "auto": GPU if there is one, bfloat16 there and float32 on the CPU, sdpa attention.

    Raises:
        UserError: an unknown precision, or a device this machine does not have.
    """
    gpus = torch.cuda.device_count()
    if device == "auto":
        device = "cpu" if not gpus else "cuda" if gpus == 1 else "balanced"
    try:
        requested = torch.device("cuda" if device == "balanced" else device)
    except RuntimeError as error:
        raise UserError(f"device {device!r} is unknown; expected auto, cpu, cuda, cuda:N or balanced") from error
    kind = requested.type
    if kind not in ("cpu", "cuda") or (kind == "cuda" and (requested.index or 0) >= gpus):
        raise UserError(f"device {device!r} is not available: torch sees {gpus} GPUs; use --device cpu")
    if dtype == "auto":
        dtype = "float32" if kind == "cpu" else "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown; expected auto or one of {', '.join(DTYPES)}")
    return Placement(dtype, "sdpa" if attention == "auto" else attention, device)


def load(entry: ModelEntry, placement: Placement) -> LoadedModel:
    """Load a model with its processor and adapter.

    Raises:
        UserError: the hub cannot be reached, the folder lacks a part, or no adapter serves this kind of model.
    """
    return with_weights(outline(entry, placement))


def outline(entry: ModelEntry, placement: Placement, local: bool = False) -> LoadedModel:
    """Load a model without its weights, on the meta device: enough to plan its runs.

    Raises:
        UserError: as `load`; with `local` also for a checkpoint that would have to be downloaded.
    """
    ensure_torchvision()
    from transformers import AutoConfig, AutoModelForImageTextToText

    if entry.folder is not None:
        _check_folder(entry.folder)
    source = entry.source if local else source_of(entry.source)
    config = _fetch(AutoConfig.from_pretrained, entry, source, local_files_only=local)
    try:
        adapter = MODELS.get(config.model_type)
    except UserError as error:
        raise UserError(f"{error}. {_supported(entry)}") from error
    processor = _load_processor(entry, source, local)
    with torch.device("meta"):
        model = _fetch(
            lambda _, **kwargs: AutoModelForImageTextToText.from_config(config, **kwargs),
            entry,
            source,
            attn_implementation=placement.attention,
        )
    weights = fingerprint(entry.folder) if entry.folder is not None else _commit(entry)
    return LoadedModel(entry, model.eval(), processor, adapter(model), placement, weights, source)


def with_weights(outlined: LoadedModel) -> LoadedModel:
    """Load the weights of an outlined model.

    Raises:
        UserError: weights are missing, damaged or of another model.
    """
    from transformers import AutoModelForImageTextToText

    entry, placement = outlined.entry, outlined.placement
    model, report = _fetch(
        AutoModelForImageTextToText.from_pretrained,
        entry,
        outlined.source,
        dtype=DTYPES[placement.dtype],
        attn_implementation=placement.attention,
        device_map=placement.device,
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"the weights of {entry.source} lack {len(missing)} parameters of {type(model).__name__} "
            f"(first: {missing[0]}); they would be random. The checkpoint is incomplete or of another model"
        )
    return dataclasses.replace(outlined, model=model.eval(), adapter=type(outlined.adapter)(model))


def fingerprint(folder: Path) -> str:
    """Hash the names and contents of a model folder's weights, configuration and processor files."""
    suffixes = (".safetensors", ".json", ".jinja", ".model", ".txt")
    return files_hash((path.name, path) for path in folder.iterdir() if path.suffix in suffixes)


def _check_folder(folder: Path) -> None:
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
            f"({' '.join(str(error).split())[:200]}). {_remedy(name)}"
        ) from error
    return name


def commit_of(source: str) -> str | None:
    """Return the commit of a hub checkpoint whose configuration is cached; None otherwise."""
    from huggingface_hub import try_to_load_from_cache
    from transformers.utils.hub import extract_commit_hash

    path = try_to_load_from_cache(source, "config.json")
    commit: str | None = extract_commit_hash(path, None) if isinstance(path, str) else None
    return commit


def _remedy(source: str) -> str:
    """Explain how to get a checkpoint of the hub onto a machine that cannot reach it."""
    return (
        "Without network access: give the path of a folder that holds the checkpoint instead; or, on a machine with "
        f"a network, run `hf download {source}` (`huggingface-cli download` in older versions) and copy its cache "
        "(HF_HOME) here"
    )


def _load_processor(entry: ModelEntry, source: str, local: bool) -> Any:
    """Load the processor with the catalogue's settings, padding on the left as generation needs."""
    from transformers import AutoProcessor

    processor = _fetch(AutoProcessor.from_pretrained, entry, source, local_files_only=local)
    if not hasattr(processor, "image_processor"):
        raise UserError(
            f"{entry.source} has a tokenizer but no image processor; expected processor_config.json or "
            f"preprocessor_config.json in its folder: is this a vision-language checkpoint? {_supported(entry)}"
        )
    if not processor.chat_template and not processor.tokenizer.chat_template:
        raise UserError(f"{entry.source} has no chat template; expected chat_template.jinja in its folder")
    for name, value in entry.image_processor.items():
        if not hasattr(processor.image_processor, name):
            raise UserError(
                f"image_processor setting {name!r} of model {entry.name!r} is unknown to "
                f"{type(processor.image_processor).__name__}; correct configs/models.yaml"
            )
        setattr(processor.image_processor, name, value)
    processor.tokenizer.padding_side = "left"
    return processor


def _commit(entry: ModelEntry) -> str:
    """Return the commit of a hub checkpoint whose configuration has been fetched."""
    commit = commit_of(entry.source)
    if commit is None:
        raise UserError(
            f"{entry.source} has no commit in the local hub cache; fetch it with `hf download {entry.source}`"
        )
    return commit


def _fetch(factory: Callable[..., Any], entry: ModelEntry, source: str, **kwargs: Any) -> Any:
    """Call `factory(source, …)` without running code of the checkpoint; re-raise its failures as UserError."""
    from safetensors import SafetensorError

    try:
        return factory(source, trust_remote_code=False, **kwargs)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{entry.source} has Python code of its own, which is never run. {_supported(entry)}"
            ) from error
        reason = " ".join(str(error).split())[:300]
        if entry.folder is not None:
            raise UserError(f"model folder {entry.folder} cannot be loaded: {reason}") from error
        raise UserError(
            f"model {entry.name!r} cannot be loaded: tried hub id {entry.source!r} and the local hub cache ({reason}). "
            f"{_remedy(entry.source)}"
        ) from error


def _supported(entry: ModelEntry) -> str:
    """Name the catalogued checkpoint whose name is nearest: the one in the format of transformers, often with "-hf"."""
    sources = {Path(one.source).name: one.source for one in catalog().values() if one.folder is None}
    near = get_close_matches(Path(entry.source).name, sources, n=1, cutoff=0.4) or sources
    return f"Use a checkpoint in the format of transformers, such as {', '.join(sources[name] for name in near)}"
