"""Import and run VLMEvalKit without the changes it makes to the process."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import random
import ssl
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from uniprune.errors import UserError

from .evaluators import literals_only
from .version import kit_version


@dataclass(frozen=True)
class Kit:
    """The modules of VLMEvalKit that load, prompt and score the datasets used here.

    Attributes:
        version: its version, as `kit_version` names it; the modules follow.
    """

    version: str
    image_mcq: Any
    image_vqa: Any
    image_yorn: Any
    miabench: Any
    refcoco: Any
    multiple_choice: Any
    mathv: Any
    mathvista: Any
    vqa_eval: Any
    mmvet: Any
    llavabench: Any
    mp_util: Any
    file: Any
    load: Any

    def dataset_class(self, module: str, name: str) -> Any:
        """Return one of the kit's dataset classes, for example ("image_yorn", "ImageYORNDataset")."""
        return getattr(getattr(self, module), name)


USED: Mapping[str, tuple[str, ...]] = {
    "dataset.image_mcq": ("ImageMCQDataset", "MMMUDataset", "MMMUProDataset", "HRBenchDataset"),
    "dataset.image_vqa": (
        *("ImageVQADataset", "MathVista", "MathVision", "OCRBench", "VizWiz", "MMVet", "LLaVABench"),
        *("build_judge", "mp"),
    ),
    "dataset.image_yorn": ("ImageYORNDataset",),
    "dataset.miabench": ("MIABench", "build_judge", "generate_prompt", "process_rawscore"),
    "dataset.refcoco": ("RefCOCODataset", "LMUDataRoot", "load"),
    "dataset.utils.multiple_choice": (
        *("timestr", "prefetch_answer", "MMMU_preproc", "can_infer", "get_pred_file_format"),
    ),
    "dataset.utils.mathv": ("is_equal", "post_check", "build_mathv_gpt4_prompt"),
    "dataset.utils.mathvista": ("post_check", "build_mathvista_gpt4_prompt"),
    "dataset.utils.vqa_eval": ("istype", "hit_calculate", "process_answer", "process_line"),
    "dataset.utils.mmvet": ("build_mmvet_gpt4_prompt", "MMVet_auxeval", "MMVet_acc"),
    "dataset.utils.llavabench": ("build_prompt", "parse_score", "LLaVABench_score"),
    "dataset.utils.yorn": ("YOrN_Extraction",),
    "dataset.utils.hrbench": ("report_acc_hrbench",),
    "utils.mp_util": ("dump",),
    "smp.file": ("get_pred_file_format", "load"),
}
"""Modules of the kit -> what the bridge calls or replaces in them."""
TESTED = "install the version that UniPrune is tested with: pip install 'uniprune[vlmeval]'"
"""Remedy for another version."""


def boot() -> Kit:
    """Import the parts of VLMEvalKit that are needed, and nothing else of it.

    `import vlmeval.dataset` loads its whole model zoo, turns gradients off, seeds torch and disables certificate
    checks. Empty stand-ins for the packages that drag this in let the dataset modules be imported alone (three seconds,
    mostly torch, instead of nine); they are taken out again, so that a later, full import finds the real ones.

    Raises:
        UserError: VLMEvalKit is not installed, or this version of it lacks something that the bridge uses.
    """
    spec = importlib.util.find_spec("vlmeval") if "vlmeval" not in sys.modules else sys.modules["vlmeval"].__spec__
    if spec is None or not spec.submodule_search_locations:
        raise UserError("VLMEvalKit is not installed; it makes the prompts and scores: pip install 'uniprune[vlmeval]'")
    root = Path(spec.submodule_search_locations[0])
    version = kit_version(root)
    with untouched(), stand_ins(root), literals_only():
        try:
            module = {path.rpartition(".")[2]: importlib.import_module(f"vlmeval.{path}") for path in USED}
        except ImportError as error:
            raise UserError(f"{version} in {root} cannot be imported: {error}; {TESTED}") from error
    for (path, names), found in zip(USED.items(), module.values(), strict=True):
        if lacking := [name for name in names if not hasattr(found, name)]:
            raise UserError(f"{version} in {root} has no {', '.join(lacking)} in vlmeval.{path}; {TESTED}")
    for name in ("yorn", "hrbench"):  # imported here, because the kit does it when the stand-ins are gone
        del module[name]
    return Kit(version, load=module["file"].load, **module)


@contextlib.contextmanager
def session() -> Iterator[Path]:
    """Make a temporary folder for one use of the kit, which runs no text as code, and after which all is as before.

    LMUData (where the kit keeps data) and PRED_FORMAT (its tables' format; the default, xlsx, evaluates "=1+1" and cuts
    long answers) are switches the kit reads from the environment only, so they are set there and restored.
    """
    with tempfile.TemporaryDirectory(prefix="uniprune-kit-") as folder, untouched(), literals_only():
        for switch in ("EVAL_FORMAT", "PRINT_VANILLA", "VERBOSE"):  # a user's shell must not change a score
            os.environ.pop(switch, None)
        os.environ.update(LMUData=folder, PRED_FORMAT="tsv")
        yield Path(folder)


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Restore, on leaving, every process-wide state that the kit (or a library it imports) is known to change.

    Environment, working folder, TLS context, gradient mode, random states, logging, warnings, Pillow's size limit.
    """
    environment, folder, tls = dict(os.environ), Path.cwd(), ssl._create_default_https_context
    grad, states = torch.is_grad_enabled(), (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002
    root, pixels = logging.getLogger(), Image.MAX_IMAGE_PIXELS
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
    logging.disable(logging.CRITICAL)  # the kit reports a missing .env file as an error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update({k: v for k, v in environment.items() if os.environ.get(k) != v})
        os.chdir(folder)
        ssl._create_default_https_context = tls
        torch.set_grad_enabled(grad)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        root.handlers[:], root.manager.disable = handlers, disabled
        root.setLevel(level)
        Image.MAX_IMAGE_PIXELS = pixels


@contextlib.contextmanager
def stand_ins(root: Path) -> Iterator[None]:
    """Replace the packages whose import has side effects by empty modules, unless the real ones are imported."""
    contents: dict[str, dict[str, Any]] = {
        "vlmeval.tools": {"cli": None},
        "vlmeval.config": {"supported_VLM": {}},
        "vlmeval.vlm": {"__path__": [str(root / "vlm")]},
        "vlmeval.dataset": {"__path__": [str(root / "dataset")]},
        # The kit's rules of LLaVA-Bench import `..smp.log`, one level too low, so it cannot score that itself.
        "vlmeval.dataset.smp": {"__path__": [str(root / "smp")]},
    }
    added = [name for name in contents if name not in sys.modules]
    for name in added:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(contents[name])
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
