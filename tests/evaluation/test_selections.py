"""Kept tokens stored with answers: the engine's own, over the areas of the right pictures, batch or not."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from tests.helpers.image_processors import photo
from tests.helpers.video_models import FAMILIES, video_model
from uniprune.errors import UnsupportedError
from uniprune.evaluation.dataset import Dataset, Request
from uniprune.evaluation.method_spec import MethodSpec
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.run import Run
from uniprune.evaluation.runner import Runner
from uniprune.evaluation.video_files import video_of
from uniprune.modeling.loading import LoadedModel
from uniprune.modeling.messages import Part
from uniprune.pruning.base import PreLLM
from uniprune.pruning.view import View
from uniprune.results.kept_tokens import KeptCells, Selections, ShownGrid
from uniprune.results.predictions import Prediction, prediction_lines
from uniprune.results.store import Store
from uniprune.utils.console import RunProgress

FRAMES = 4
SIZE = (150, 90)
"""Width and height of frames."""


@dataclass(frozen=True, kw_only=True)
class Seen(PreLLM):
    """Keeps the tokens with the largest first feature, and records tokens and choices."""

    tokens: list[Tensor] = field(default_factory=list)
    chosen: list[list[int]] = field(default_factory=list)

    def select(self, view: View, keep: int) -> Tensor:
        self.tokens.append(view.tokens.clone())
        picks = view.tokens[:, 0].topk(keep).indices.sort().values
        self.chosen.append(picks.tolist())
        return picks


def answered(loaded: LoadedModel, messages: Sequence[Sequence[Part]], batch: int = 1) -> tuple[list[Prediction], Seen]:
    """Answer messages with one method; predictions in their order."""
    method = Seen(ratio=0.3)
    requests = [Request(str(n), lambda parts=parts: parts, "What?", 1) for n, parts in enumerate(messages)]
    with Runner(loaded, method, batch, keep_selections=True, timed=False) as runner:
        found = [one for predictions in runner.predictions(requests) for one in predictions]
    assert [one.error for one in found] == [None] * len(found)
    return sorted(found, key=lambda one: int(one.index)), method


def kept(prediction: Prediction) -> tuple[Selections, list[int]]:
    assert prediction.selections is not None
    return prediction.selections, prediction.selections.kept().nonzero()[0].tolist()


@cache
def faint_video_model(family: str) -> LoadedModel:
    """A model in whose tower a patch changes its own token most."""

    def faint(module: Any, args: Any, output: Any) -> Any:
        return (output[0] * 0.01, *output[1:]) if isinstance(output, tuple) else output * 0.01

    loaded = video_model(family)
    for block in loaded.adapter.vision_blocks():
        loaded.adapter.vision_attention(block).register_forward_hook(faint)
    return loaded


def clip(frames: Sequence[Image.Image]) -> list[Part]:
    return [Part(video=video_of(frames, 2.0)), Part(text="What?")]


@pytest.mark.parametrize("family", FAMILIES)
def test_cells_of_a_clip_show_their_frame(family: str) -> None:
    """Paint in one frame, where a token is, changes that token most, in every family with videos."""
    loaded, plain = faint_video_model(family), [photo(*SIZE, seed) for seed in range(8)]
    [prediction], method = answered(loaded, [clip(plain)])
    selections, chosen = kept(prediction)
    assert chosen == method.chosen[0]
    cells, before = list(selections.cells()), method.tokens[0]
    assert len(cells) == len(before)
    assert {cell.picture for cell in cells} == {0, 2, 4, 6} if "llava" not in family else set(range(8))
    for number in (len(cells) // 2 + 1, len(cells) - 1):
        cell, frames = cells[number], list(plain)
        pixels = np.array(frames[cell.picture])
        x0, y0, x1, y1 = (round(edge * SIZE[i % 2]) for i, edge in enumerate(cell.area))
        pixels[max(y0, 0) + 4 : y1 - 4, max(x0, 0) + 4 : x1 - 4] = 255
        frames[cell.picture] = Image.fromarray(pixels)
        _, changed = answered(loaded, [clip(frames)])
        assert int((changed.tokens[0] - before).norm(dim=-1).argmax()) == number


def test_rows_of_a_batch_have_their_own_pictures() -> None:
    """Two images, none, a clip, one image, twice both: as alone, and as the engine's report has it."""
    loaded = faint_video_model("qwen2_5_vl")
    images = [photo(120, 80, 1), photo(60, 140, 2), photo(90, 90, 3)]
    messages = [
        [Part(image=images[0]), Part(text="or"), Part(image=images[1]), Part(text="What?")],
        [Part(text="What?")],
        clip([photo(*SIZE, seed) for seed in range(8)]),
        [Part(image=images[2]), Part(text="What?")],
        [*clip([photo(*SIZE, seed) for seed in range(8)]), Part(image=images[0]), Part(text="Which?")],
        [Part(image=images[1]), *clip([photo(*SIZE, seed) for seed in range(8)]), Part(text="Which?")],
    ]
    together, _ = answered(loaded, messages, batch=4)
    alone = [answered(loaded, [message]) for message in messages]
    for batched, ([single], method) in zip(together, alone, strict=True):
        assert batched.selections == single.selections
        selections, chosen = kept(single)
        counts = [len(tokens) for tokens in method.tokens]
        starts = np.cumsum([0, *counts])
        assert chosen == [
            int(start) + cell for start, cells in zip(starts, method.chosen, strict=False) for cell in cells
        ]
        assert selections.tokens == sum(counts) == single.initial
    assert [one.selections.pictures for one in together if one.selections] == [2, 0, 7, 1, 8, 8]


@pytest.mark.parametrize("scope", ["prompt", "tile"])
def test_a_scope_changes_no_area(scope: Any) -> None:
    loaded = faint_video_model("llava_next_video")
    message = [Part(image=photo(200, 90, 1)), Part(text="and"), Part(image=photo(60, 140, 2)), Part(text="What?")]
    found = []
    for one in ("image", scope):
        request = Request("0", lambda: message, "What?", 1)
        with Runner(loaded, Seen(ratio=0.3, scope=one), 1, keep_selections=True, timed=False) as runner:
            [[prediction]] = runner.predictions([request])
        cells = list(kept(prediction)[0].cells())
        found.append({(cell.picture, *(round(edge, 3) for edge in cell.area)) for cell in cells})
    assert len(found[0] ^ found[1]) == 0


def evaluated(loaded: LoadedModel, dataset: Dataset, output: Path, keep: bool) -> tuple[str, list[Prediction], str]:
    """Run a method; return the run's identity, its predictions, and what was printed."""
    console = Console(file=io.StringIO(), width=300)
    options = RunOptions(limit=4, batch_size=2, max_new_tokens=2, keep_selections=keep)
    run = Run(loaded, MethodSpec("fastv", 0.25).normalised(), options)
    record = run.evaluate([dataset], Store(output), RunProgress(4, console))
    lines = prediction_lines(Store(output).predictions(record.identity, dataset.name)).read()
    return record.identity, list(lines), console.file.getvalue()  # type: ignore[attr-defined]


def test_selections_are_stored_on_request_only_and_change_nothing_else(
    loaded: LoadedModel, small: Dataset, tmp_path: Path
) -> None:
    plain_identity, plain, _ = evaluated(loaded, small, tmp_path / "plain", keep=False)
    identity, found, _ = evaluated(loaded, small, tmp_path / "kept", keep=True)
    assert identity == plain_identity
    same = {"spans", "ttft", "tpot", "selections"}
    assert [one.model_dump(exclude=same) for one in found] == [one.model_dump(exclude=same) for one in plain]
    assert all(one.selections is None for one in plain)
    for one in found:
        selections, chosen = kept(one)
        assert (len(chosen), [stage.layer for stage in selections.stages]) == (36, [2])
        assert selections.tokens == one.initial == 144
        more = len(one.model_dump_json(exclude_none=True)) - len(one.model_dump_json(exclude_none=True, exclude=same))
        assert more < 400

    _, again, said = evaluated(loaded, small, tmp_path / "plain", keep=True)
    assert again == plain
    assert "small: 4 answers were stored without --keep-selections and stay so; choose another --output" in said


def test_a_family_without_areas_is_refused_before_the_run(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(loaded.processor.image_processor)
    monkeypatch.setattr(loaded.processor, "image_processor", type("OtherImageProcessor", (kind,), {})())
    with pytest.raises(
        UnsupportedError, match=r"the tokens of OtherImageProcessor show are not described.*expected CLIP"
    ):
        Run(loaded, MethodSpec("none"), RunOptions(keep_selections=True))


def test_masks_survive_packing() -> None:
    rng = np.random.default_rng(0)
    for tokens in (1, 7, 8, 9, 577):
        mask = rng.random(tokens) < 0.3
        cells = KeptCells.of(2, mask, mask & (rng.random(tokens) < 0.5))
        assert KeptCells.model_validate_json(cells.model_dump_json()) == cells
        assert (cells.mask(tokens) == mask).all()
        merged = cells.merged_mask(tokens)
        assert merged is not None
        assert (merged <= mask).all()
    with pytest.raises(ValueError, match="1 bytes for 9 visual tokens"):
        KeptCells.of(0, np.ones(8, bool)).mask(9)
    assert torch.tensor(KeptCells.of(0, np.zeros(0, bool)).mask(0)).numel() == 0


@pytest.mark.parametrize(("tiles", "side", "stages", "size"), [(1, 24, 1, 213), (1, 24, 3, 449), (13, 16, 1, 1498)])
def test_stored_lines_grow_by_as_much_as_documented(tiles: int, side: int, stages: int, size: int) -> None:
    grid = ShownGrid(size=(1, side, side), area=(0.33333, 0.25, 0.66667, 0.5), pictures=[0])
    whole = grid.model_copy(update={"area": (0.0, 0.0, 1.0, 1.0)})
    mask = np.arange(tiles * side**2) % 9 == 0
    found = Selections(grids=[whole if tiles == 1 else grid] * tiles, stages=[KeptCells.of(0, mask)] * stages)
    assert len(',"selections":' + found.model_dump_json(exclude_none=True)) == size
