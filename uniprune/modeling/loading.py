"""Load a model, its processor and its adapter from a catalogue entry."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from uniprune.errors import UserError
from uniprune.modeling.adapter import ModelAdapter
from uniprune.modeling.catalog import ModelEntry
from uniprune.modeling.checkpoints import (
    check_folder,
    check_sources,
    fetch,
    fingerprint,
    required_commit,
    source_of,
    supported,
)
from uniprune.modeling.families import find_adapter, unregistered
from uniprune.modeling.image_check import check_image_settings
from uniprune.modeling.image_settings import with_settings
from uniprune.modeling.placeholder_check import check_placeholders
from uniprune.modeling.varlen import HALF, VARLEN, use_tower_attention, usual_tower_attention
from uniprune.registry import MODELS
from uniprune.utils.torchvision_compat import ensure_torchvision

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
WITHOUT_DEVICE = ("sdpa", "eager")
"""Attention kernels that compute shapes on the meta device."""


@dataclass(frozen=True)
class Placement:
    """Resolved precision, attention kernel and device.

    Attributes:
        dtype: "float32", "float16" or "bfloat16".
        attention: a kernel name of transformers.
        device: "cpu", "cuda", "cuda:1", …, or "balanced" to spread the layers over all GPUs.
        tower: kernel of vision towers that attend within windows or images of one sequence (`ModelAdapter.packed`):
            `VARLEN` or a name of transformers; None for `attention`.
    """

    dtype: str
    attention: str
    device: str
    tower: str | None = None

    def __str__(self) -> str:
        tower = [f"{self.tower} in the vision tower"] * (self.tower is not None)
        return ", ".join([self.dtype, self.attention, *tower, self.device])

    @property
    def kernels(self) -> dict[str, str]:
        """The attention kernel of language model and vision tower; an audio tower, never run, keeps its own."""
        return dict.fromkeys(("", "text_config", "vision_config"), self.attention)

    @property
    def kind(self) -> str:
        """Kind of device: "cpu" or "cuda"."""
        return "cuda" if self.device == "balanced" else self.device.split(":")[0]

    def of(self, adapter: ModelAdapter) -> Placement:
        """Return the placement of a model: towers that attend to whole images have no kernel of their own."""
        return self if adapter.packed else dataclasses.replace(self, tower=None)


@dataclass(frozen=True)
class LoadedModel:
    """A model with its processor and adapter.

    Attributes:
        entry: its catalogue entry.
        model: the Hugging Face model in evaluation mode.
        processor: tokenizer and image processor, with the model's own settings of the catalogue.
        adapter: its layout.
        placement: precision, kernel and device.
        weights: hub commit or hash of the folder.
        source: hub id or folder that everything is loaded from.
        compared: whether `check_placeholders` has compared processor and model; some towers need weights for that.
    """

    entry: ModelEntry
    model: Any
    processor: Any
    adapter: ModelAdapter
    placement: Placement
    weights: str
    source: str
    compared: bool = True

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.adapter.layers)

    @property
    def precision(self) -> str:
        """Precision of the computation, and how the checkpoint's weights are quantised, if they are."""
        quantised = getattr(self.model.config, "quantization_config", None)
        if quantised is None:
            return self.placement.dtype
        method = quantised["quant_method"] if isinstance(quantised, Mapping) else quantised.quant_method
        return f"{self.placement.dtype} {getattr(method, 'value', method)}"

    @property
    def image_processor(self) -> dict[str, Any]:
        """Class of the image processor, and the settings of the catalogue that are used; part of a run's identity."""
        name = type(self.processor.image_processor).__name__
        if self.entry.images == "checkpoint":
            return {"class": name}
        fields = self.entry.plain()
        benchmarks = {pattern: more.plain() for pattern, more in self.entry.benchmarks.items()}
        settings = {**fields.pop("image_processor", {}), **fields}
        return {"class": name, **settings, **({"benchmarks": benchmarks} if benchmarks else {})}

    def processor_for(self, benchmark: str) -> Any:
        """Return the processor of the rows of a benchmark."""
        return with_settings(self.processor, self.entry.image_settings(benchmark).image_processor)


def place(dtype: str = "auto", attention: str = "auto", device: str = "auto") -> Placement:
    """Resolve "auto": GPU if there is one, bfloat16 there and float32 on the CPU, sdpa attention.

    Towers that attend within windows or images of one sequence get `VARLEN` with half precision on a GPU, and if
    `attention` names it: all else then has sdpa.

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
    fast = attention == "auto" and kind == "cuda" and DTYPES[dtype] in HALF
    tower = usual_tower_attention() if fast else VARLEN if attention == VARLEN else None
    return Placement(dtype, "sdpa" if attention in ("auto", VARLEN) else attention, device, tower)


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
        check_folder(entry.folder)
    elif Path(entry.source).is_dir():
        raise UserError(
            f"model {entry.name!r} is hub id {entry.source!r}, in whose place transformers would load the folder "
            f"{Path(entry.source).resolve()}; give that path (with --like {entry.name} for the same settings), or run "
            "the command in another working directory"
        )
    source = entry.source if local else source_of(entry.source)
    config = fetch(AutoConfig.from_pretrained, entry, source, local_files_only=local)
    if config.model_type not in MODELS.names():
        raise UserError(f"{entry.source}: {unregistered(config)}. {supported(entry)}")
    if entry.family not in (None, config.model_type):
        raise UserError(
            f"{entry.source} is a model of family {config.model_type!r}, but {entry.like or entry.name} in "
            f"configs/models.yaml has the settings of family {entry.family!r}; give --like another entry, or correct it"
        )
    weights = fingerprint(entry.folder) if entry.folder is not None else required_commit(entry)
    kwargs = {"local_files_only": local, **_revision(source, weights)}
    check_sources(entry, source, config, **kwargs)
    processor = _load_processor(entry, source, **kwargs)

    def build(kernels: dict[str, str]) -> Any:
        make = AutoModelForImageTextToText.from_config
        with torch.device("meta"):
            return fetch(lambda _, **kwargs: make(config, **kwargs), entry, source, attn_implementation=kernels)

    model, plain = build(placement.kernels), dataclasses.replace(placement, attention="eager")
    shapes = model if placement.attention in WITHOUT_DEVICE else build(plain.kernels)
    compared = check_placeholders(entry.source, processor, find_adapter(shapes))
    adapter = find_adapter(model.eval())
    return LoadedModel(entry, model, processor, adapter, placement.of(adapter), weights, source, compared)


def with_weights(outlined: LoadedModel) -> LoadedModel:
    """Load the weights of an outlined model.

    Raises:
        UserError: weights are missing, superfluous, damaged or of another model, or their folder was changed since.
    """
    from transformers import AutoModelForImageTextToText

    entry, placement = outlined.entry, outlined.placement
    model, report = fetch(
        AutoModelForImageTextToText.from_pretrained,
        entry,
        outlined.source,
        dtype=DTYPES[placement.dtype],
        attn_implementation=placement.kernels,
        device_map=placement.device,
        output_loading_info=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # reported below, with the shapes
        **_revision(outlined.source, outlined.weights),
    )
    _check_report(report, f"the weights of {entry.source}", type(model).__name__)
    if entry.folder is not None and fingerprint(entry.folder) != outlined.weights:
        raise UserError(
            f"model folder {entry.folder} was changed while this command was running, so that its files are of no one "
            "checkpoint; run the command again once nothing writes to it"
        )
    adapter = find_adapter(model.eval())
    if placement.tower is not None:
        use_tower_attention(model, placement.tower)
    compared = outlined.compared or check_placeholders(entry.source, outlined.processor, adapter)
    return dataclasses.replace(outlined, model=model, adapter=adapter, compared=compared)


def with_generation_config(outlined: LoadedModel) -> LoadedModel:
    """Read the generation settings of an outlined model, which its weights bring otherwise; it may have none."""
    from transformers import GenerationConfig

    with suppress(OSError):
        revision = _revision(outlined.source, outlined.weights)
        outlined.model.generation_config = GenerationConfig.from_pretrained(outlined.source, **revision)
    return outlined


def _revision(source: str, weights: str) -> dict[str, str]:
    """Return the argument that pins a checkpoint of the hub to the commit of the run's identity; none for a folder."""
    return {} if Path(source).is_dir() else {"revision": weights}


def _check_report(report: Mapping[str, Any], weights: str, model: str) -> None:
    """Check that every parameter was loaded and every weight has its place, but those that transformers ignores.

    Raises:
        UserError: some are missing, superfluous or of another shape; the message names the first.
    """
    other = "config.json and the weights must be of one checkpoint, complete and of this model"
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{weights} lack {len(missing)} parameters of {model} (first: {missing[0]}); they would be random. {other}"
        )
    if mismatched := sorted(report["mismatched_keys"]):
        name, found, expected = mismatched[0]
        raise UserError(
            f"{weights} have {len(mismatched)} parameters of another shape than {model} (first: {name}, "
            f"{tuple(found)} instead of {tuple(expected)}). {other}"
        )
    if unexpected := sorted(report["unexpected_keys"]):
        raise UserError(
            f"{weights} have {len(unexpected)} parameters without a place in {model} (first: {unexpected[0]}); they "
            f"would be left out, as if the model were smaller. {other}"
        )


def _load_processor(entry: ModelEntry, source: str, **kwargs: Any) -> Any:
    """Load the processor with the catalogue's settings, padding on the left as generation needs."""
    from transformers import AutoProcessor

    processor = fetch(AutoProcessor.from_pretrained, entry, source, **kwargs)
    if not hasattr(processor, "image_processor"):
        raise UserError(
            f"{entry.source} has a tokenizer but no image processor; expected processor_config.json or "
            f"preprocessor_config.json in its folder: is this a vision-language checkpoint? {supported(entry)}"
        )
    if not processor.chat_template and not processor.tokenizer.chat_template:
        raise UserError(f"{entry.source} has no chat template; expected chat_template.jinja in its folder")
    processor.tokenizer.padding_side = "left"
    check_image_settings(processor, entry)
    return with_settings(processor, entry.image_settings().image_processor)
