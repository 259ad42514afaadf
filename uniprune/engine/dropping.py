"""One stage of a prefill: ask the method for all token groups, and drop what it did not choose.

Of a method that keeps the number it is asked for, all lengths are known before it has chosen: everything stays on the
device, and its choice is copied to the CPU on the way. A method that chooses the number itself is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.compaction import replace_tokens
from uniprune.engine.decisions import (
    Answer,
    Choice,
    Choices,
    batched,
    choose,
    choose_batch,
    joined,
    sent_to_host,
    settle,
)
from uniprune.engine.device_tokens import DeviceTokens
from uniprune.engine.host_copy import sent, to_device
from uniprune.engine.kept_tokens import Ints, KeptTokens, Known, Row, Source, pack, valid_columns
from uniprune.engine.known_columns import KnownColumns, found_columns
from uniprune.engine.prompt import Prompt, Survivors
from uniprune.engine.stage_groups import StageGroups, StageInput
from uniprune.engine.stage_view import StageBatch, StageView
from uniprune.engine.token_groups import TokenGroup
from uniprune.engine.token_rows import Move
from uniprune.errors import UserError
from uniprune.pruning.base import Stage

Decided = list[tuple[StageGroups, Answer]]
Size = tuple[int, int]
"""Tokens of a group, and how many shall stay."""


@dataclass(frozen=True)
class Dropped:
    """A batch after a stage.

    Attributes:
        hidden: [B, n, D] hidden states before tokens are dropped, with replaced ones.
        columns: [B, n'] columns that stay, any at padding.
        now: the tokens that are left.
        moves: tokens that take the place of others.
        choices: answers whose values are not checked yet, if any.
    """

    hidden: Tensor
    columns: Tensor
    now: DeviceTokens
    moves: list[Move]
    choices: Choices | None


@torch.no_grad()
def decide(arriving: StageInput, prompts: Sequence[Prompt]) -> Decided:
    """Call the stage's method for every group of every prompt, unless everything is kept anyway.

    Groups of one size are decided together where the method can, in its second form; else in the order of the prompts.

    Returns:
        Groups with their answer; of methods that keep what they are asked for, all groups of one size.
    """
    stage, width = arriving.stage, arriving.hidden.shape[-1]
    members: dict[Size, list[tuple[Prompt, TokenGroup]]] = {}
    order: list[tuple[Size, int]] = []
    for prompt in prompts:
        for group, count in zip(prompt.groups, prompt.counts, strict=True):
            size = count, prompt.keep(group, stage)
            if count and (size[1] < count or not stage.pruner.exact):
                members.setdefault(size, []).append((prompt, group))
                order.append((size, len(members[size]) - 1))
    together = {size: StageGroups(arriving, own, size[1]) for size, own in members.items()}
    views = {size: [StageView(groups, i) for i in range(len(groups.members))] for size, groups in together.items()}
    if stage.pruner.needs_text:
        _check_questions(stage, [views[size][i] for size, i in order])
    found: dict[Size, Answer] = {}
    for size, groups in together.items():
        if len(groups.members) > 1 and batched(stage.pruner):
            answer = choose_batch(stage, groups.samples, StageBatch(groups, views[size]), *size, width)
            found |= {} if answer is None else {size: answer}
    alone: dict[Size, list[Answer]] = {}
    for size, i in order:
        if size not in found:
            alone.setdefault(size, []).append(choose(stage, together[size].samples[i], views[size][i], *size, width))
    if not stage.pruner.exact:
        return [(together[size].only(i), answer) for size, own in alone.items() for i, answer in enumerate(own)]
    found |= {size: joined(own, together[size]) for size, own in alone.items()}
    return [(groups, found[size]) for size, groups in together.items()]


def _check_questions(stage: Stage, views: Sequence[StageView]) -> None:
    for view in views:
        if not view.asks:
            raise UserError(
                f"{type(stage.pruner).__name__} needs the question, but sample {view.sample!r} has no text after its "
                "first image; set PromptInfo.question or put the question after the image"
            )


# --- what stays -------------------------------------------------------------------------------------------------
def dropped_on_device(arriving: StageInput, decided: Decided, prompts: Sequence[Prompt], copies: int) -> Dropped | None:
    """Return the batch without the tokens that were not chosen; nothing is read from the device.

    None if everything stays.

    Args:
        arriving: the batch at the stage.
        decided: all groups of which something goes.
        prompts: those of the batch.
        copies: rows per prompt.
    """
    now, device, length = arriving.now, arriving.device, arriving.now.length
    if not decided:
        _record(arriving.stage.layer, prompts, decided, [])
        return None
    lengths, gone = _lengths(decided, now, copies)
    together = [groups for groups, _ in decided]
    # A choice outside the group is refused when its values are read, and must not be gathered until then.
    chosen = [to_device(answer.indices.long(), device).clamp(0, groups.total - 1) for groups, answer in decided]
    ordered = [own.sort(1).values for own in chosen]
    survivors = [groups.survivors(own) for groups, own in zip(together, ordered, strict=True)]
    known, counts = KnownColumns.of(together, now, gone, copies), list[Tensor]()
    if known is not None:
        columns = index = known.chosen(ordered, together, device)
    else:
        columns, index, counts = found_columns(together, survivors, now, gone, lengths, copies, device)
    choices, (found, *sizes) = sent_to_host([answer for _, answer in decided], index, *counts)
    _record(arriving.stage.layer, prompts, decided, choices)
    pairs = zip(decided, chosen, survivors, strict=True)
    replaced = [one for pair, own, kept in pairs for one in _replacements(*pair, own, kept, now)]
    for groups, own in zip(together, survivors, strict=True):
        for number, (prompt, group) in enumerate(groups.members):
            prompt.chosen[group.ordinal] = own, number
    valid = valid_columns(lengths)
    left = DeviceTokens(KeptTokens(arriving.stage.layer, lengths, valid.shape[1], valid, found), length, index)
    hidden, moves = _replaced(arriving.hidden, replaced, copies), _moves(replaced, copies, length)
    unchecked = Choices(arriving.stage.layer, choices, lengths[::copies], sizes[0] if sizes else None)
    return Dropped(hidden, columns, left, moves, unchecked)


def dropped_on_host(arriving: StageInput, decided: Decided, prompts: Sequence[Prompt], copies: int) -> Dropped | None:
    """Return the same for groups of one answer each, once their choice has been read: the device is waited for.

    Raises:
        PruningError: impossible values of an answer.
    """
    now, device, length = arriving.now, arriving.device, arriving.now.length
    choices = settle([answer for _, answer in decided])
    replaced = []
    for (groups, answer), choice in zip(decided, choices, strict=True):
        ((prompt, group),) = groups.members
        if answer.released or answer.tokens is not None:
            chosen, cells = choice.indices.read()[0], prompt.cells[group.ordinal]
            positions = prompt.row * length + prompt.positions_of(group, cells[chosen])
            sources = sent(now.known_columns(positions), device)
            tokens = arriving.flat[sources] if answer.tokens is None else answer.tokens
            if answer.released:
                ordered = np.sort(positions)
                moved = sent(ordered, device), sent(positions, device)
                replaced.append(Replaced(sent(now.known_columns(ordered), device), tokens, moved))
            else:
                replaced.append(Replaced(sources, tokens))
    _record(arriving.stage.layer, prompts, decided, choices)
    rows = [now.kept.columns(prompts[b // copies].survivors, b) for b in range(len(now.kept.lengths))]
    columns, lengths = pack(rows), tuple(map(len, rows))
    if not replaced and lengths == now.kept.lengths:
        return None
    valid = valid_columns(lengths)
    index = np.where(valid, np.take_along_axis(now.kept.index, columns, 1), 0)
    left = DeviceTokens(KeptTokens(arriving.stage.layer, lengths, valid.shape[1], valid, Known(index)), length)
    hidden, moves = _replaced(arriving.hidden, replaced, copies), _moves(replaced, copies, length)
    return Dropped(hidden, sent(columns, device), left, moves, None)


def _lengths(decided: Decided, now: DeviceTokens, copies: int) -> tuple[tuple[int, ...], Ints]:
    """Return the tokens of every row after a stage, and positions of markers whose group has no token left."""
    lengths, gone = list(now.kept.lengths), [np.arange(0)]
    for groups, _ in decided:
        for prompt, group in groups.members:
            markers = prompt.markers_of(group) if not groups.keep else gone[0]
            gone.append(prompt.row * now.length + markers)
            for row in range(prompt.row, prompt.row + copies):
                lengths[row] -= groups.total - groups.keep + len(markers)
    return tuple(lengths), np.concatenate(gone)


def _record(layer: int, prompts: Sequence[Prompt], decided: Decided, choices: Sequence[Choice]) -> None:
    """Record the choices of a stage with every prompt."""
    picks: dict[int, dict[int, tuple[int, Source]]] = {prompt.row: {} for prompt in prompts}
    for (groups, answer), choice in zip(decided, choices, strict=True):
        for number, (prompt, group) in enumerate(groups.members):
            picks[prompt.row][group.ordinal] = answer.indices.shape[1], Row(choice.indices, number)
    for prompt in prompts:
        prompt.decided(layer, picks[prompt.row])


@dataclass(frozen=True)
class Replaced:
    """Tokens to write into a sequence.

    Attributes:
        places: [m] columns, counted through the batch.
        tokens: [..., D], m in all.
        moved: [m] positions of the places, and of the tokens that take them, counted likewise; None if each is its own.
    """

    places: Tensor
    tokens: Tensor
    moved: tuple[Tensor, Tensor] | None = None


def _replacements(
    groups: StageGroups, answer: Answer, chosen: Tensor, survivors: Survivors, now: DeviceTokens
) -> list[Replaced]:
    """Return the tokens that an answer writes into the places of its choice, if any."""
    if answer.released:
        tokens = groups.chosen_tokens(chosen) if answer.tokens is None else answer.tokens
        moved = survivors.positions.flatten(), groups.positions.gather(1, chosen).flatten()
        return [Replaced(now.columns_of(survivors.positions).flatten(), tokens, moved)]
    if answer.tokens is None:
        return []
    return [Replaced(groups.columns.gather(1, chosen).flatten(), answer.tokens)]


def _replaced(hidden: Tensor, replaced: Sequence[Replaced], copies: int) -> Tensor:
    """Return hidden states with tokens written into all copies of their prompts."""
    if not replaced:
        return hidden
    tokens = _cat([one.tokens.to(hidden).flatten(0, -2) for one in replaced])
    places = _in_copies(_cat([one.places for one in replaced]), copies, hidden.shape[1])
    return replace_tokens(hidden, places, tokens if copies == 1 else tokens.repeat(copies, 1))


def _moves(replaced: Sequence[Replaced], copies: int, length: int) -> list[Move]:
    pairs = [one.moved for one in replaced if one.moved is not None]
    return [(_in_copies(places, copies, length), _in_copies(sources, copies, length)) for places, sources in pairs]


def _in_copies(places: Tensor, copies: int, width: int) -> Tensor:
    """Return places in the first row of every prompt, and the same in its other rows."""
    return places if copies == 1 else torch.cat([places + row * width for row in range(copies)])


def _cat(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
