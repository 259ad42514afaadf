"""`view.attention` and its relatives: attention and embeddings of the decoder at the tokens of one view, or of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uniprune.engine.attention import AttentionCapture
from uniprune.engine.host_copy import sent, to_device
from uniprune.engine.stage_groups import StageGroups
from uniprune.errors import PruningError
from uniprune.pruning.view import Rows
from uniprune.pruning.view_batch import BatchAttention, BatchRows


@dataclass(frozen=True)
class ViewAttention:
    """`view.attention` and `view.upcoming`: attention of one decoder layer to the tokens of one view.

    Args:
        captured: the layer's attention inputs; None if the method did not declare that it reads them.
        row: batch item.
        valid: computes [n] False at padding, None without padding.
        visual: computes [N] columns of the view's tokens in their row.
        text: computes the [T] columns of all text tokens, if the method may read them.
        prompt: computes the columns of the question's tokens, which few methods read.
        last: computes [1] the column of the prompt's last token.
        check_text: raises an error unless the method may read text.
    """

    _captured: AttentionCapture | None
    _row: int
    _valid: Callable[[], Tensor | None]
    _visual: Callable[[], Tensor]
    _text: Callable[[], Tensor]
    _prompt: Callable[[], Tensor]
    _last: Callable[[], Tensor]
    check_text: Callable[[], object]

    def __call__(self, rows: Rows | Tensor) -> Tensor:
        """Return [heads, R, N] probabilities; see `uniprune.pruning.view.Attention`."""
        blocks = list(self.blocks(rows))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)

    def blocks(self, rows: Rows | Tensor) -> Iterator[Tensor]:
        """Return an iterator over [heads, r, N] probabilities, a few rows at a time."""
        captured, valid = self.captured, self._valid()
        queries, columns = self._on(self.columns(rows)), self._on(self._visual())
        return captured.probabilities(self._row, queries, columns, None if valid is None else self._on(valid))

    def keys(self, rows: Rows | Tensor) -> Tensor:
        """Return [R, key heads * d] keys after rotary embedding."""
        return self.captured.keys(self._row, self._on(self.columns(rows)))

    def rotary_prior(self, rows: Rows | Tensor) -> Tensor:
        """Return [R, N] scaled dot products of all-ones queries and keys after rotary embedding."""
        return self.captured.rotary_prior(self._row, self._on(self.columns(rows)), self._on(self._visual()))

    @property
    def captured(self) -> AttentionCapture:
        """The layer's attention inputs.

        Raises:
            PruningError: the method did not declare that it reads them.
        """
        if self._captured is None:
            raise PruningError(
                "LLM attention was not captured; set the class variable llm_attention = True for view.attention, "
                "upcoming_attention = True for view.upcoming"
            )
        return self._captured

    def _on(self, columns: Tensor) -> Tensor:
        return to_device(columns, self.captured.hidden.device)

    def columns(self, rows: Rows | Tensor) -> Tensor:
        """Return the columns [R] that `rows` name."""
        if isinstance(rows, Tensor):
            return to_device(self._text(), rows.device)[rows]
        match rows:
            case "last":
                self.check_text()
                return self._last()
            case "prompt":
                return self._prompt()
            case "text":
                return self._text()
            case "visual":
                return self._visual()
        raise PruningError(f"attention rows {rows!r} are unknown; expected a tensor, last, prompt, text or visual")


@dataclass(frozen=True)
class ViewEmbedded:
    """`view.embedded`: embeddings that entered decoder layer 0."""

    _visual: Callable[[], Tensor]
    _text: Callable[[], Tensor]

    @property
    def tokens(self) -> Tensor:
        """[N, D] at the view's tokens."""
        return self._visual()

    @property
    def text(self) -> Tensor:
        """[T, D] at the text tokens."""
        return self._text()


class GroupsAttention(BatchAttention):
    """The same of token groups of one size: rows of the last tokens are computed for all of them at once.

    Args:
        parts: those of the views.
        groups: the groups.
    """

    def __init__(self, parts: Sequence[ViewAttention], groups: StageGroups) -> None:
        super().__init__(parts)
        self._views, self._groups = parts, groups

    def __call__(self, rows: BatchRows) -> Tensor:
        """Return [P, heads, R, N] probabilities."""
        if not (isinstance(rows, str) and rows == "last"):
            return super().__call__(rows)
        for view in self._views:
            view.check_text()
        groups, now, captured = self._groups, self._groups.arriving.now, self._views[0].captured
        device, batch = captured.hidden.device, len(captured.hidden)
        last = now.kept.last_columns
        queries = None if (last == now.kept.width - 1).all() else sent(last, device)
        owners = None if groups.rows == list(range(batch)) else sent(np.array(groups.rows), device)
        return captured.last(queries, to_device(groups.local, device), owners, now.valid(device))[:, :, None]

    def keys(self, rows: BatchRows) -> Tensor:
        """Return [P, R, key heads * d]."""
        captured = self._views[0].captured
        if not captured.kept_keys or (isinstance(rows, str) and rows != "visual"):
            return super().keys(rows)
        device = captured.hidden.device
        if isinstance(rows, str):
            columns = to_device(self._groups.local, device)
        else:
            columns = torch.stack(
                [to_device(view.columns(own), device) for view, own in zip(self._views, rows, strict=True)]
            )
        return captured.keys_of(sent(np.array(self._groups.rows), device), columns)
