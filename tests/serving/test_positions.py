"""Positions that kept tokens carry through vLLM: exact in half precision, alike however a prompt is cut."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from uniprune_vllm.positions import CHANNELS, MovedPositions, offsets_of, with_offsets

IMAGE, TEXT = 4, 7


class Model(MovedPositions):
    """A model with square images of `side` tokens, and positions of three axes or one."""

    placeholder = IMAGE

    def __init__(self, side: int, axes: int) -> None:
        self.side, self.axes = side, axes

    def extent(self, feature: Any) -> int:
        return self.side if self.axes == 3 else self.side**2

    def offsets(self, cells: Tensor) -> Tensor:
        return (
            torch.stack((cells // self.side, cells % self.side), 1) if self.axes == 3 else cells[:, None].expand(-1, 2)
        )


def feature(offset: int, length: int) -> Any:
    return SimpleNamespace(mm_position=SimpleNamespace(offset=offset, length=length))


def positions(
    model: Model, ids: list[int], kept: list[Tensor], places: list[int], cuts: list[int]
) -> tuple[Tensor, int]:
    """Return positions and their excess after a prefill in chunks that end at `cuts`."""
    found, excess = model.get_mrope_input_positions(
        ids, [feature(at, len(one)) for at, one in zip(places, kept, strict=True)]
    )
    start = 0
    for end in [*cuts, len(ids)]:
        parts = []
        for at, cells in zip(places, kept, strict=True):
            inside = cells[max(start - at, 0) : max(end - at, 0)]
            if len(inside):
                parts.append(with_offsets(torch.zeros(len(inside), 8), model.offsets(inside)))
        embeddings, found, again = model.recompute_mrope_positions(ids, parts, found, start)
        assert again == excess
        assert all(one.shape[1] == 8 for one in embeddings)
        start = end
    return found, excess


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("cells", [576, 4096, 65_536])
def test_offsets_are_exact_in_every_precision(cells: int, dtype: torch.dtype) -> None:
    offsets = torch.stack((torch.arange(cells), torch.arange(cells).flip(0)), 1)
    carried = with_offsets(torch.zeros(cells, 3, dtype=dtype), offsets)
    assert carried.dtype == dtype
    assert carried.shape == (cells, 3 + CHANNELS)
    assert torch.equal(offsets_of(carried), offsets.T)


def test_a_whole_image_has_the_positions_of_the_unpruned_prompt() -> None:
    ids = [TEXT] * 3 + [IMAGE] * 9 + [TEXT] * 4
    found, excess = positions(Model(3, 1), ids, [torch.arange(9)], [3], [])
    assert found[1].tolist() == list(range(16))
    assert excess == 0


def test_kept_tokens_and_text_keep_their_places() -> None:
    ids = [TEXT] * 3 + [IMAGE] * 2 + [TEXT] * 4
    found, excess = positions(Model(3, 1), ids, [torch.tensor([1, 7])], [3], [])
    assert found[1].tolist() == [0, 1, 2, 4, 10, 12, 13, 14, 15]
    assert excess == 16 - len(ids)
    found, excess = positions(Model(3, 3), ids, [torch.tensor([1, 7])], [3], [])
    assert found.tolist() == [[0, 1, 2, 3, 3, 6, 7, 8, 9], [0, 1, 2, 3, 5, 6, 7, 8, 9], [0, 1, 2, 4, 4, 6, 7, 8, 9]]
    assert excess == 10 - len(ids)


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("cuts", [[1], [4], [5], [6, 7], [2, 3, 4, 5, 6, 7, 8, 9, 10]])
def test_prefills_in_chunks_move_tokens_to_the_same_places(axes: int, cuts: list[int]) -> None:
    """Two images follow each other without text between them."""
    ids = [TEXT] * 2 + [IMAGE] * 2 + [IMAGE] * 3 + [TEXT] * 4
    kept, model = [torch.tensor([2, 8]), torch.tensor([0, 4, 5])], Model(3, axes)
    at_once, _ = positions(model, ids, kept, [2, 4], [])
    in_chunks, _ = positions(model, ids, kept, [2, 4], cuts)
    assert torch.equal(at_once[1:], in_chunks[1:])


def test_a_prefill_that_starts_again_moves_nothing_twice() -> None:
    ids, model, kept = [TEXT, IMAGE, IMAGE, TEXT], Model(3, 1), torch.tensor([3, 5])
    found, _ = positions(model, ids, [kept], [1], [])
    _, again, _ = model.recompute_mrope_positions(ids, [with_offsets(torch.zeros(2, 8), model.offsets(kept))], found, 0)
    assert torch.equal(found, again)


def test_decoding_steps_change_nothing() -> None:
    ids, model = [TEXT, IMAGE, TEXT], Model(3, 1)
    found, excess = positions(model, ids, [torch.tensor([3])], [1], [])
    embeddings, same, again = model.recompute_mrope_positions(ids, [], found, 3)
    assert (list(embeddings), again) == ([], excess)
    assert same is found
