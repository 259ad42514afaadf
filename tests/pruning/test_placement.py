"""Pruning points in decoders whose layers do not all have attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from uniprune.errors import UnsupportedError
from uniprune.pruning.base import IntraLLM, Pruner, Stage
from uniprune.pruning.budget import layer_average, with_average
from uniprune.pruning.placement import moves, placed

EVERY_FOURTH = [layer % 4 == 3 for layer in range(12)]
"""Attention in layers 3, 7 and 11."""


@dataclass(frozen=True, kw_only=True)
class Before(IntraLLM):
    """A method that reads the attention of layer K - 1."""

    llm_attention: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Coming(IntraLLM):
    """A method that reads the attention of layer K."""

    upcoming_attention: ClassVar[bool] = True


def layers(method: Pruner, *wanted: int, attends: list[bool] = EVERY_FOURTH) -> list[int]:
    """Return where stages of one method at layers `wanted` are placed."""
    return [stage.layer for stage in placed([Stage(layer, 0.5, method) for layer in wanted], attends)]


def test_a_stage_moves_to_the_next_layer_that_fits() -> None:
    assert layers(Before(), 2) == layers(Before(), 4) == [4]
    assert layers(Coming(), 2) == layers(Coming(), 3) == [3]
    assert layers(IntraLLM(), 2) == [2]


def test_after_the_last_one_it_moves_back() -> None:
    assert layers(Before(), 9) == [8]
    assert layers(Coming(), 10) == [11]


def test_decoders_with_attention_in_every_layer_move_nothing() -> None:
    stages = Before().schedule(12)
    assert placed(stages, [True] * 12) == placed(stages, []) == stages
    assert moves(stages, [True] * 12) == []


def test_stages_of_one_method_that_meet_are_the_last_one() -> None:
    method = Before()
    found = placed([Stage(k, ratio, method) for k, ratio in ((1, 0.9), (3, 0.5), (5, 0.2))], EVERY_FOURTH)
    assert [(stage.layer, stage.ratio) for stage in found] == [(4, 0.5), (8, 0.2)]
    assert moves([Stage(k, 0.5, method) for k in (1, 4, 5)], EVERY_FOURTH) == [(1, 4), (5, 8)]


def test_methods_that_would_change_places_are_refused() -> None:
    stages = [Stage(2, 0.5, Before()), Stage(3, 0.5, IntraLLM())]
    with pytest.raises(UnsupportedError, match="Before prunes at layer 4 and IntraLLM at layer 3"):
        placed(stages, EVERY_FOURTH)


def test_a_decoder_without_what_is_read_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no layer of the decoder has what it reads"):
        layers(Before(), 1, attends=[False, False, True])


def test_the_average_counts_from_where_it_prunes() -> None:
    found = with_average(Before(), 0.5, 12, EVERY_FOURTH)
    assert layer_average(placed(found.schedule(12), EVERY_FOURTH), 12) == pytest.approx(0.5)
    assert found.ratio == pytest.approx((0.5 * 12 - 4) / 8)
