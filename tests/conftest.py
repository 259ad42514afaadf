"""Shared fixtures: untrained tiny checkpoints of every family, saved as users find them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tests.helpers import golden_cases, samples
from tests.helpers.paths import PLUGINS
from uniprune.utils.torchvision_compat import ensure_torchvision

if TYPE_CHECKING:
    from uniprune.evaluation.dataset import Dataset
    from uniprune.modeling.loading import LoadedModel

ensure_torchvision()
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--golden DIR`."""
    parser.addoption(
        "--golden", type=Path, default=golden_cases.FOLDER, metavar="DIR", help="folder of the reference vectors"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise the tests marked by `golden_cases.golden`."""
    for marker in metafunc.definition.iter_markers("golden"):
        metafunc.parametrize("case", golden_cases.cases(metafunc.config.getoption("--golden"), *marker.args))


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave most cases of a test marked `sample` to `make test-all`."""
    samples.leave_out(item)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests first: at the end no process waits for another's long test."""
    items.sort(key=lambda item: [item.get_closest_marker(mark) is None for mark in ("slow", "end_to_end")])


def pytest_collection_finish() -> None:
    """Exempt imported objects from garbage collection, which takes six per cent of the time with them."""
    gc.freeze()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of an untrained tiny model (one of `build.FAMILIES`, or "llava-next") and its processor."""
    from tests.helpers.llava_next_checkpoint import save
    from uniprune.models.tiny.build import build_model, build_processor

    root = tmp_path_factory.mktemp("checkpoints")

    def build(family: str) -> Path:
        folder = root / family
        if family == "llava-next" and not folder.exists():
            save(folder)
        elif not folder.exists():
            build_model(family, seed=0).save_pretrained(folder)
            build_processor(family).save_pretrained(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def mini_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the generated benchmarks, each drawn by the first test that needs it."""
    return tmp_path_factory.mktemp("mini_data")


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[[str], Path]) -> LoadedModel:
    """Load an untrained tiny LLaVA on the CPU."""
    from uniprune.modeling.catalog import ModelEntry
    from uniprune.modeling.loading import Placement, load

    return load(ModelEntry(name="tiny", source=str(checkpoint("llava"))), Placement("float32", "sdpa", "cpu"))


@pytest.fixture(scope="module")
def small() -> Dataset:
    """Load twelve coloured images with one question each."""
    from uniprune.evaluation.dataset import DataOptions
    from uniprune.registry import BENCHMARKS, load_plugin

    load_plugin(PLUGINS / "small_benchmark.py")
    built: Dataset = BENCHMARKS.get("small")(DataOptions(Path("unused")))
    return built


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hub unreachable at once, with or without a network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
