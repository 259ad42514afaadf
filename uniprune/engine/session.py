"""The context manager: installs the hooks, routes each forward to a prefill or a decode step, removes everything.

docs/engine.md lists the hooks along the time line of a prefill and of a decode step.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Self

from torch import Tensor, nn

from uniprune.engine.checks import check_arguments, check_encodable, check_mode, checked_stages, in_tower
from uniprune.engine.compaction import forget, recall
from uniprune.engine.decode import Decode
from uniprune.engine.encoder_arguments import EncoderArguments
from uniprune.engine.forward import Forward
from uniprune.engine.further_turn import FurtherTurn, Turn, further_turn
from uniprune.engine.hooks import Hooks
from uniprune.engine.last_tokens import cut_output
from uniprune.engine.looks import attach
from uniprune.engine.prefill import Prefill
from uniprune.engine.prefix import Prefix, check_unaware, prefilled
from uniprune.engine.preparation import Preparation
from uniprune.engine.question import PromptInfo
from uniprune.engine.report import PrefillReport
from uniprune.engine.served import check_cache, check_hooked, check_kernel, check_untraced
from uniprune.engine.timer import Timer
from uniprune.engine.token_map import PrefillInputs
from uniprune.engine.tower_hooks import TowerHooks
from uniprune.engine.vision import Vision, VisionCapture
from uniprune.engine.vision_batch import VisionBatch, encode, join, latest
from uniprune.errors import UnsupportedError
from uniprune.modeling.families import find_adapter
from uniprune.pruning.base import Pruner, Stage
from uniprune.pruning.placement import Move, moves

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def prune(model: Any, pruner: Pruner, timer: Timer | None = None) -> Session:
    """Prune visual tokens in every forward of `model` inside the `with` block.

        with prune(model, FastV(ratio=0.111)) as session:
            session.samples = (PromptInfo("17"),)
            model.generate(**inputs)
        session.reports[-1].rows[0].entering

    Works with generate (greedy, sampling, beams, assisted) and hand-written loops, on left-padded batches with any
    number of images per row. Threads that generate must finish inside the block.

    Args:
        model: a loaded Hugging Face vision-language model of a registered family, in eval mode.
        pruner: the method.
        timer: receives the method's time, see `uniprune.engine.timer`.

    Raises:
        UserError: unknown family, or a layer the model does not have.
        UnsupportedError: model or call cannot give right results under pruning; the message gives the reason.
        PruningError: the method's answer breaks its contract.
    """
    return Session(model, pruner, timer)


class Session:
    """A pruned model, returned by `prune`.

    Attributes:
        samples: one `PromptInfo` per prompt of the next prefill, which clears them; by default ids "0", "1", …
        reports: one `PrefillReport` per prefill so far.
        timer: as given.
        moved: the method's layers, and those used instead where the attention that it reads does not exist.
    """

    def __init__(self, model: Any, pruner: Pruner, timer: Timer | None = None) -> None:
        self.samples: tuple[PromptInfo, ...] = ()
        self.reports: list[PrefillReport] = []
        self.moved: list[Move] = []
        self._adapter, self._pruner, self.timer = find_adapter(model), pruner, timer
        self._stages: tuple[Stage, ...] = ()
        self._hooks = Hooks(self._adapter.layers, self._before_layer)
        self._tower = TowerHooks(self._adapter, self._method_time)
        self._given: Mapping[str, Any] = {}  # arguments of the adapter's encoder that is running
        self._reset()

    def _reset(self) -> None:
        """Forget the current forward."""
        self._inputs: PrefillInputs | None = None  # of a prefill, until its decoder runs
        self._prepared: Preparation | None = None  # of the same, once its tower was queued
        self._turn: Turn | None = None  # a later one with images, until its decoder runs
        self._forward: Forward | None = None
        self._hooked = 0  # decoder layers whose hook ran
        self._tower.capture = None
        self._calls: list[VisionCapture] = []  # the tower's latest and the one before it: of images, and of videos
        self._vision: Vision | None = None  # for the next prefill: its latest call, or what `present` was given

    # --- lifecycle ----------------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        base = self._adapter.base
        if any(isinstance(getattr(hook, "__self__", None), Session) for hook in base._forward_pre_hooks.values()):
            raise UnsupportedError("this model is already being pruned; leave that session first, or compose methods")
        self._stages = checked_stages(self._adapter, self._pruner)
        self.moved = moves(self._pruner.schedule(len(self._adapter.layers)), self._adapter.attends)
        try:
            self._attach()
        except BaseException:
            self._detach()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._detach()

    def _attach(self) -> None:
        adapter, hooks = self._adapter, self._hooks
        hooks.before(adapter.model, self._before_call)
        hooks.before(adapter.base, self._before_model)
        hooks.after(adapter.base, self._after_model, always_call=True)
        hooks.before(adapter.decoder, self._before_decoder)
        for read in [stage.layer - 1 for stage in self._stages if stage.pruner.llm_attention]:
            hooks.before(adapter.layers[read].self_attn, partial(self._before_attention, read))
        attach(hooks, adapter, self._stages, lambda: self._forward)
        hooks.before(adapter.vision, self._before_vision)
        hooks.after(adapter.vision, self._after_vision)
        for name in adapter.encoders:
            hooks.add(EncoderArguments(adapter.base, name, self._before_encoder))
        self._tower.attach(hooks, self.vision_blocks, in_tower(self._stages))

    def _detach(self) -> None:
        self._hooks.remove()
        self._reset()

    def _method_time(self) -> AbstractContextManager[None]:
        return self.timer.span("method") if self.timer is not None else nullcontext()

    # --- shared prefixes and image features ---------------------------------------------------------------------
    def prefix(self, inputs: dict[str, Any]) -> Prefix:
        """Prefill the common beginning of several prompts: `inputs` are a forward's, up to any token after the images.

        `samples` holds for it as for any prefill.

        Raises:
            UnsupportedError: the method looks at the question, or positions in time of a video go beyond the text's.
        """
        check_unaware(self._stages)
        mask, cache = prefilled(self._adapter, inputs)
        return Prefix(self.reports[-1], mask, cache)

    @property
    def vision_blocks(self) -> frozenset[int]:
        """Blocks of the tower that the method reads."""
        return frozenset(self._adapter.block_index(layer) for layer in self._pruner.vision_layers)

    def encode(self, visual: dict[str, Tensor]) -> VisionCapture:
        """Run the vision tower on a prompt's visual inputs, outside any prefill; `present` uses the result.

        The capture holds what this session's method reads of the tower, so it serves any session whose method reads
        the same blocks or fewer.

        Raises:
            UnsupportedError: the method drops patches inside the tower.
        """
        check_encodable(self._stages)
        features = encode(self._adapter, visual)
        capture, self._vision, self._tower.capture, self._calls = self._tower.capture, None, None, []
        assert capture is not None  # the tower has just run
        capture.output = join([features])
        return capture

    def present(self, calls: Sequence[VisionCapture]) -> dict[str, Any]:
        """Return argument `mm_encoder_outputs` of the next `generate`: the images of `calls` in prompt order."""
        output = join([call.output for call in calls])
        self._vision = VisionBatch(self._adapter, tuple(calls), output)
        return {"image": output}

    # --- hooks: model -------------------------------------------------------------------------------------------
    def _before_call(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        check_untraced()
        check_arguments(kwargs)

    def _before_model(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[tuple[()], Kwargs]:
        """Begin a prefill (empty cache), a further turn with images, or a decode step (cache that was pruned)."""
        check_untraced()
        check_mode(module.training)
        check_kernel(self._adapter)
        if args:
            kwargs = dict(inspect.signature(module.forward).bind_partial(*args).arguments) | kwargs
        self._inputs = self._forward = self._turn = self._prepared = None
        cache = kwargs.get("past_key_values")
        if cache is None or int(cache.get_seq_length()) == 0:
            check_cache(self._adapter, cache)
            with self._method_time():
                forget(cache)
                self._begin(kwargs)
            return (), kwargs
        state = recall(cache)
        with self._method_time():
            turn = further_turn(self._adapter, self._stages, self._pruner, state, kwargs)
            if turn is not None:
                self._begin({**kwargs, "attention_mask": None}, turn)
                return (), turn.arguments
        if state is None or not (state.stages or state.recounted):
            return (), kwargs
        self._forward = decode = Decode(state, cache, self._adapter)
        self._hooks.on_layers(decode.layers)
        return (), decode.before_model(kwargs)

    def _begin(self, kwargs: Kwargs, turn: Turn | None = None) -> None:
        """Begin a prefill or a further turn; choose the calls of the tower that made features given to it, if any."""
        self._turn, infos, self.samples = turn, tuple(self.samples), ()
        self._inputs = PrefillInputs(self._adapter, infos, kwargs)
        if self._inputs.prunable(self._stages):
            self._inputs.fetch()
        features = kwargs.get("mm_encoder_outputs") or {}
        outputs = [features[kind] for kind in ("image", "video") if features.get(kind) is not None]
        if outputs and self._vision is not None and (len(outputs) > 1 or outputs[0] is not self._vision.output):
            self._vision = latest(self._adapter, self._calls, outputs)
        self._calls = []  # without features the tower runs inside the forward

    def _before_decoder(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        """Construct the prefill: the tower has run, inside this forward, or before it on un-repeated images."""
        (inputs, self._inputs), (prepared, self._prepared) = (self._inputs, None), (self._prepared, None)
        if inputs is None:
            return None
        embeds, positions = kwargs["inputs_embeds"], kwargs.get("position_ids")
        if inputs.mixed and len(self._calls) > 1:
            self._vision = VisionBatch(self._adapter, self._calls, None)
        with self._method_time():
            given = (self._adapter, self._pruner, self._stages, inputs, embeds, positions, self._vision)
            made = Prefill if self._turn is None else partial(FurtherTurn, self._turn.earlier)
            self._forward = prefill = made(*given, self._method_time, prepared)
            self._hooks.on_layers(prefill.layers)
            return args, prefill.before_decoder(kwargs)

    def _after_model(self, module: nn.Module, args: Args, output: Any) -> None:
        """Complete the forward; `output` is None after an exception."""
        forward, hooked = self._forward, self._hooked
        self._reset()
        if forward is None or output is None:
            return
        check_hooked(hooked, len(forward.layers))
        if (report := forward.after_model()) is not None:
            self.reports.append(report)
            if report.kept and report.batch.inputs.wanted:
                cut_output(output, report.batch.inputs.wanted)

    # --- hooks: decoder -----------------------------------------------------------------------------------------
    def _before_layer(self, layer: int, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        check_untraced()
        if self._forward is None:
            return None
        self._hooked += 1
        hidden = args[0] if args else kwargs["hidden_states"]
        changed = self._forward.before_layer(layer, hidden, kwargs)
        if changed is None:
            return None
        hidden, kwargs = changed[0], kwargs | changed[1]
        more = self._forward.further_inputs(args[1:])
        return ((hidden, *more), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

    def _before_attention(self, layer: int, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self._forward is not None:
            self._forward.before_attention(layer, module, args[0] if args else kwargs["hidden_states"], kwargs)

    # --- hooks: vision tower and projector ----------------------------------------------------------------------
    def _before_encoder(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def _before_vision(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        self._vision = capture = self._tower.begin(args, kwargs, self._given)
        self._calls = [*self._calls[-1:], capture]

    def _after_vision(self, module: nn.Module, args: Args, output: Any) -> None:
        if self._tower.capture is not None:
            self._tower.capture.output = output
        if self._inputs is not None and self._inputs.prunable(self._stages):  # a GPU runs the tower meanwhile
            with self._method_time():
                self._prepared = Preparation.early(self._adapter, self._pruner, self._inputs, self._vision)
                self._hooks.on_layers(range(len(self._adapter.layers)))
