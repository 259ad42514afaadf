"""Base classes of pruning methods: frozen dataclasses with one pure decision, `select`.

Every method is the same sentence: *before decoder layer K, keep these visual tokens*. `layer` is K; 0 means before the
language model. `uniprune.pruning.tower` has methods inside the vision tower, `uniprune.pruning.input_stage` those that
change images. Methods never round, sort, touch a model or keep state: the engine requests `keep` indices, no more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from uniprune.errors import UserError
from uniprune.pruning.budget import check_ratio
from uniprune.pruning.calibration import Calibration
from uniprune.pruning.fields import NonNegative, validate
from uniprune.pruning.placement import TOWER

if TYPE_CHECKING:
    from torch import Tensor

    from uniprune.pruning.input_stage import InputStage
    from uniprune.pruning.looks import Look, Passage
    from uniprune.pruning.view import TowerLayer, View
    from uniprune.pruning.view_batch import ViewBatch

Positions = Literal["original", "compact", "vllm"]
Scope = Literal["image", "prompt", "grid", "tile"]
Order = Literal["raster", "release"]


@dataclass(frozen=True)
class Selection:
    """Kept tokens and, for merging methods, what they become.

    Attributes:
        indices: [keep] indices into `view.tokens`, any order, unique.
        tokens: optional [keep, D] replacement features, row i replacing token `indices[i]` in its slot and position.

    The answer of `Pruner.select_batch` has one more dimension in front, of the views.
    """

    indices: Tensor
    tokens: Tensor | None = None


@dataclass(frozen=True)
class Stage:
    """One pruning point.

    Attributes:
        layer: the first decoder layer that receives fewer tokens.
        ratio: share to keep of the tokens that arrived at the pruner's first stage; 0 drops them all. Counting from the
            first stage keeps the roundings of a long schedule from adding up.
        pruner: the method that decides.
        block: the first block of the vision tower that receives fewer tokens; None for a choice after the tower.
        plan: returns the tokens that each block merges, from a tile's tokens, those to keep and the number of blocks.
    """

    layer: int
    ratio: float
    pruner: Pruner
    block: int | None = None
    plan: Callable[[int, int, int], Sequence[int]] | None = None

    @property
    def keeps_all(self) -> bool:
        """Return whether no token can be dropped here."""
        return self.ratio >= 1 and self.pruner.exact


@dataclass(frozen=True, kw_only=True)
class Pruner:
    """Base of all methods. Subclass `PreLLM`, `IntraLLM` or `InTower` and write `select`.

    The values of all fields are checked against their annotations, see `uniprune.pruning.fields`.

    Args:
        ratio: share of the visual tokens to keep at the pruning point, in (0, 1]; 1 leaves the model untouched.
        layer: K, the first decoder layer that receives the pruned sequence.
        seed: seed of `view.generator`, mixed with the sample's id.
        positions: "original" ids of all tokens; "compact", as in a short prompt; "vllm", which moves text after images.
        scope: tokens that share a ratio and a decision: those of each "image", of all images of a "prompt", of each
            "grid" of an image (frame of a clip), or of each "tile" that the vision tower encodes apart (as much of it
            as the prompt has).
        order: "raster" keeps every token in its place; "release" fills the kept places in the order in which `select`
            returns the tokens, as some released codes do. The same thing for methods that return ascending indices.
    """

    ratio: float = 1.0
    layer: NonNegative = 0
    seed: int = 0
    positions: Positions = "original"
    scope: Scope = "image"
    order: Order = "raster"

    kind: ClassVar[str] = "pre-llm"
    """Place in which it acts: "none", "input", "tower", "pre-llm", "intra-llm" or "hybrid"."""
    llm_attention: ClassVar[bool] = False
    """True if `select` reads `view.attention`, which needs a layer before K, so K >= 1."""
    upcoming_attention: ClassVar[bool] = False
    """True if `select` reads `view.upcoming`."""
    needs_text: ClassVar[bool] = False
    """True if `view.prompt` must not be empty."""
    takes_gaps: ClassVar[bool] = False
    """True if before layer 0 `select` works on grids with tokens missing, as after a method in the vision tower."""
    calibration: ClassVar[type[Calibration] | None] = None
    """A search for settings on prompts of the un-pruned model; see `uniprune.pruning.calibration`."""
    random: ClassVar[bool] = False
    """True if `select` draws from `view.generator`; several seeds are several runs, averaged on the leaderboard."""
    scale_invariant: ClassVar[bool] = False
    """True if multiplying all visual features by one number changes no choice; where claimed, `check` verifies it."""

    def __post_init__(self) -> None:
        validate(self)
        check_ratio(self.ratio)
        if self.llm_attention and self.layer == 0:
            raise UserError(
                f"{type(self).__name__} ranks tokens by LLM attention, which does not exist before layer 0; "
                "use layer >= 1 (the paper's default is 2)"
            )

    @property
    def exact(self) -> bool:
        """Return whether exactly the requested number of tokens is kept; False if the method chooses its own."""
        return True

    @property
    def prompt_aware(self) -> bool:
        """Return whether `select` reads text of the prompt, or attention from it: the choice depends on the question.

        By default methods do that read attention of the language model or need text.
        """
        return self.needs_text or self.llm_attention or self.upcoming_attention

    @property
    def in_place(self) -> bool:
        """Return whether every token stays in its place."""
        return self.order == "raster"

    @property
    def vision_layers(self) -> tuple[TowerLayer, ...]:
        """Vision-tower layers that `select` reads through `view.vision`: by default the field `vision_layer`, if any.

        See `uniprune.pruning.view.TowerLayer`.
        """
        return (self.vision_layer,) if hasattr(self, "vision_layer") else ()

    @property
    def input_stage(self) -> InputStage | None:
        """Return the part that changes images before they are processed, None without any."""
        return None

    @property
    def input_ratio(self) -> float:
        """Return the share of visual tokens that the input stage is to leave."""
        return 1.0

    def after_input(self) -> Pruner:
        """Return the method without its input stage, for a model whose images that has changed."""
        return self

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return the pruning points, in order, for a decoder of `num_layers` layers.

        Raises:
            UserError: a layer is outside the decoder.
        """
        if not 0 <= self.layer < num_layers:
            raise UserError(f"layer {self.layer} is outside the model's decoder layers 0..{num_layers - 1}")
        return (Stage(self.layer, self.ratio, self),)

    def looks(self, layers: Sequence[int]) -> Sequence[Look]:
        """Return where `look` is called, for a method that prunes before decoder layers `layers`: by default nowhere.

        After the last of them nothing is looked at. See `uniprune.pruning.looks`.
        """
        return ()

    def look(self, passage: Passage) -> Tensor:
        """Return a row per token, [B, n, ...], of what passes one of `looks`; `view.seen` has those of tokens left."""
        raise NotImplementedError(f"{type(self).__name__} names looks, so it must implement look(passage)")

    def evict_from(self, num_layers: int) -> int | None:
        """Return the first decoder layer whose KV cache is cut, after the prefill, to what the last stage leaves.

        None, the rule, leaves every layer the keys and values of the tokens that entered it.
        """
        return None

    def select(self, view: View, keep: int) -> Tensor | Selection:
        """Choose `keep` of the visual tokens in `view.tokens`. Must be pure and deterministic given `view`."""
        raise NotImplementedError(f"{type(self).__name__} must implement select(view, keep)")

    def select_batch(self, batch: ViewBatch, keep: int, /) -> Tensor | Selection | None:
        """Choose `keep` tokens of every view of a batch, [P, keep], with fewer operations than one `select` per view.

        Optional: None, the rule, calls `select` for each view. A `select` whose rules take dimensions in front of a
        view's serves as both: `select_batch = select`. The choices must be those of `select`, bit for bit;
        `check` verifies it.
        """
        return None

    def with_ratio(self, ratio: float) -> Self:
        """Return the same method with another keep ratio."""
        return dataclasses.replace(self, ratio=ratio)

    def __rshift__(self, other: Pruner) -> Compose:
        """Compose: `DivPrune(ratio=1/3) >> FastV(ratio=1/3, layer=2)` prunes, then prunes what is left."""
        return Compose(self, other)


@dataclass(frozen=True, kw_only=True)
class PreLLM(Pruner):
    """A method that decides before the language model (K = 0)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer != 0:
            raise UserError(
                f"{type(self).__name__} prunes before the language model, so layer must be 0, not {self.layer}"
            )


@dataclass(frozen=True, kw_only=True)
class IntraLLM(Pruner):
    """A method that decides before decoder layer K >= 1, by default K = 2."""

    layer: NonNegative = 2
    kind: ClassVar[str] = "intra-llm"
    takes_gaps: ClassVar[bool] = True


@dataclass(frozen=True, init=False, kw_only=True)
class Compose(Pruner):
    """Several methods one after the other; each keeps its ratio of what the one before left.

    Positions, scope and seed are those of the whole prompt, so the parts must agree on them; each has its own `order`.
    A part in the vision tower comes first and decides tile by tile, whatever the scope of the others.
    """

    parts: tuple[Pruner, ...] = ()
    kind: ClassVar[str] = "hybrid"

    def __init__(self, *parts: Pruner) -> None:
        flat = tuple(p for part in parts for p in (part.parts if isinstance(part, Compose) else (part,)))
        if len(flat) < 2:
            raise UserError(f"a composition needs at least two methods, got {len(flat)}")
        if late := [p for p in flat[1:] if p.input_stage is not None]:
            raise UserError(f"{type(late[0]).__name__} acts before the model; name it first in a composition")
        at = [TOWER if p.kind == "tower" else p.layer for p in flat if p.input_stage is None]
        if at != sorted(set(at)):
            raise UserError(f"composed methods must act at increasing layers ({TOWER}: tower), got {at}; reorder them")
        after = [p for p in flat if p.kind != "tower"]
        for field in ("positions", "scope", "seed"):
            values = {getattr(p, field) for p in (after if field == "scope" else flat)}
            if len(values) > 1:
                raise UserError(f"composed methods must agree on {field}, got {', '.join(map(str, sorted(values)))}")
        set_ = object.__setattr__
        set_(self, "parts", flat)
        set_(self, "ratio", math.prod(p.ratio for p in flat))
        for field in ("layer", "seed", "positions"):
            set_(self, field, getattr(flat[0], field))
        set_(self, "scope", after[0].scope)

    @property
    def vision_layers(self) -> tuple[TowerLayer, ...]:
        """All vision layers that any part reads."""
        return tuple(dict.fromkeys(layer for part in self.parts for layer in part.vision_layers))

    @property
    def input_stage(self) -> InputStage | None:
        """Return the first part if it changes images."""
        return self.parts[0].input_stage

    @property
    def input_ratio(self) -> float:
        """Return the ratio of the first part if it changes images."""
        return self.parts[0].input_ratio

    def after_input(self) -> Pruner:
        """Return the other parts if the first changes images."""
        rest = self.parts if self.input_stage is None else self.parts[1:]
        return Compose(*rest) if len(rest) > 1 else rest[0]

    def schedule(self, num_layers: int) -> tuple[Stage, ...]:
        """Return the parts' pruning points in order."""
        return tuple(stage for part in self.parts for stage in part.schedule(num_layers))

    def evict_from(self, num_layers: int) -> int | None:
        """Return the first layer from which any part evicts."""
        return min((k for part in self.parts if (k := part.evict_from(num_layers)) is not None), default=None)

    def with_ratio(self, ratio: float) -> Self:
        """Spread a total ratio evenly: each of n parts keeps ratio ** (1/n) of what reaches it."""
        share = check_ratio(ratio) ** (1 / len(self.parts))
        return type(self)(*(part.with_ratio(share) for part in self.parts))
