"""The context manager: installs the hooks, routes each forward to a prefill or a decode step, removes everything."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from uniprune.engine.attention import AttentionCapture
from uniprune.engine.cache import forget, recall
from uniprune.engine.checks import check_call, checked_stages
from uniprune.engine.compaction import placeholders, visual_inputs
from uniprune.engine.decode import Decode
from uniprune.engine.prefill import Prefill
from uniprune.engine.prompt import PromptInfo
from uniprune.engine.report import PrefillReport
from uniprune.engine.shared import VisionBatch, encode, join
from uniprune.engine.vision import Vision, VisionCapture
from uniprune.errors import UnsupportedError
from uniprune.modeling.adapter import find_adapter
from uniprune.pruning.base import Pruner, Stage

if TYPE_CHECKING:
    from uniprune.engine.timer import Timer


def prune(model: Any, pruner: Pruner, timer: Timer | None = None) -> Session:
    """Prune visual tokens of everything `model` does inside the `with` block.

        with prune(model, FastV(ratio=0.111)) as session:
            session.samples = (Sample("17"),)
            model.generate(**inputs)
        session.reports[-1].rows[0].entering

    Works with generate (greedy, sampling, beams, assisted) and hand-written loops, on left-padded batches with any
    number of images per row. Threads that generate must finish inside the block.

    Args:
        model: a loaded Hugging Face vision-language model of a registered family, in eval mode.
        pruner: the method.
        timer: receives the time the method takes, see `uniprune.engine.timer`.

    Raises:
        UserError: unknown family, or a layer the model does not have.
        UnsupportedError: model or call cannot give right results under pruning; the message says why.
        PruningError: the method returned something else than it was asked for.
    """
    return Session(model, pruner, timer)


class Session:
    """What `prune` returns.

    Attributes:
        samples: one `PromptInfo` per prompt of the next batch, used and cleared by the next prefill; ids are "0", "1",
        …
            by default.
        reports: one `PrefillReport` per prefill so far.
    """

    def __init__(self, model: Any, pruner: Pruner, timer: Timer | None = None) -> None:
        self.family, self.pruner = find_adapter(model), pruner
        self.samples: tuple[PromptInfo, ...] = ()
        self.reports: list[PrefillReport] = []
        self._timer = timer
        self._handles: list[Any] = []
        self._layer_handles: list[Any] = []
        self._listening = range(0)
        self._run: Prefill | Decode | None = None
        self._vision: Vision | None = None
        self._call: VisionCapture | None = None
        self._features: Any = None
        self._stages: dict[int, Stage] = {}

    # --- lifecycle ----------------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        base = self.family.base
        if any(isinstance(getattr(hook, "__self__", None), Session) for hook in base._forward_pre_hooks.values()):
            raise UnsupportedError("this model is already being pruned; leave that session first, or compose methods")
        self._stages = checked_stages(self.family, self.pruner)
        try:
            self._attach()
        except BaseException:
            self._detach()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._detach()

    def _attach(self) -> None:
        family = self.family
        self._before(family.model, self._check)
        self._before(family.base, self._begin)
        self._handles.append(family.base.register_forward_hook(self._end, always_call=True))
        self._before(family.decoder, self._merged)
        for layer, stage in self._stages.items():
            if stage.pruner.llm_attention:
                self._before(family.layers[layer - 1].self_attn, partial(self._tap_decoder, layer - 1))
        self._before(family.vision, self._encode)
        self._handles.append(family.vision.register_forward_hook(self._encoded))
        self._before(family.projector, self._tap_projector)
        self._handles.append(family.projector.register_forward_hook(self._projected))
        blocks = family.vision_blocks()
        for layer in {family.block_index(layer) for layer in self.pruner.vision_layers}:
            self._before(blocks[layer], partial(self._tap_block, layer))
            self._handles.append(blocks[layer].register_forward_hook(partial(self._tap_block_output, layer)))
            self._before(family.vision_attention(blocks[layer]), partial(self._tap_vision, layer))

    def _before(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def _listen(self, layers: range) -> None:
        """Have hooks on these decoder layers only, ahead of all others: what other hooks see is what the layer gets."""
        if layers == self._listening:
            return
        while self._layer_handles:
            self._layer_handles.pop().remove()
        for layer in layers:
            hook = partial(self._layer, layer)
            handle = self.family.layers[layer].register_forward_pre_hook(hook, with_kwargs=True, prepend=True)
            self._layer_handles.append(handle)
        self._listening = layers

    def _detach(self) -> None:
        self._listen(range(0))
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._run = self._vision = self._call = self._features = None

    def _method_time(self) -> AbstractContextManager[None]:
        return self._timer.span("method") if self._timer is not None else nullcontext()

    # --- shared pictures ----------------------------------------------------------------------------------------
    def encode(self, visual: dict[str, Tensor]) -> VisionCapture:
        """Run the vision tower now, outside any prefill, on a prompt's visual inputs; `present` uses the result.

        The call holds what this session's method looks at in the tower, so it serves any session whose method looks
        at the same blocks or fewer.
        """
        features = encode(self.family, visual)
        call = self._call
        self._vision = self._call = None
        assert call is not None  # the tower has just run
        call.output = BaseModelOutputWithPooling(pooler_output=features.pooler_output)
        return call

    @property
    def looks_at(self) -> frozenset[int]:
        """Blocks of the tower that the method looks at."""
        return frozenset(self.family.block_index(layer) for layer in self.pruner.vision_layers)

    def present(self, calls: Sequence[VisionCapture]) -> dict[str, Any]:
        """Argument `mm_encoder_outputs` of the next `generate`: pictures of `calls`, in the order of the prompts."""
        output = join([call.output for call in calls])
        self._vision = VisionBatch(self.family, tuple(calls), output)
        return {"image": output}

    # --- whole model --------------------------------------------------------------------------------------------
    def _check(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check_call(module.training, kwargs)

    def _begin(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        """Prefill (an empty cache) or decode (a cache that was pruned)?"""
        if args:
            kwargs = dict(inspect.signature(module.forward).bind_partial(*args).arguments) | kwargs
        check_call(module.training, kwargs)
        self._run = None
        cache = kwargs.get("past_key_values")
        if cache is None or int(cache.get_seq_length()) == 0:
            with self._method_time():
                forget(cache)
                self._run = self._prefill(kwargs)
                self._listen(self._run.layers)
            return (), kwargs
        state = recall(cache)
        if state is None:
            return (), kwargs
        if visual_inputs(kwargs) and bool(placeholders(self.family, kwargs).any()):
            raise UnsupportedError(
                "new images on top of a pruned KV cache (a second turn with images, or chunked prefill) are not "
                "supported; start again with an empty cache and the whole conversation"
            )
        self._run = Decode(state, cache, self.family.decoder.config)
        self._listen(self._run.layers)
        return (), self._run.repair(kwargs)

    def _prefill(self, kwargs: dict[str, Any]) -> Prefill:
        samples, self.samples = tuple(self.samples), ()
        self._features = next(iter((kwargs.get("mm_encoder_outputs") or {}).values()), None)
        return Prefill(self.family, self.pruner, self._stages, samples, kwargs, self._method_time)

    def _merged(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The language model is about to run. The tower has run inside this forward, or before it, un-repeated."""
        if self._run is None:
            return
        call = self._vision
        if call is not None and self._features is not None and self._features is not call.output:
            call = None  # features from elsewhere: the last tower call was about other images
        with self._method_time():
            self._run.start(kwargs["inputs_embeds"], kwargs.get("position_ids"), call)

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        self._vision = self._call = self._features = None
        report = run.finish() if output is not None else None
        if report is not None:
            self.reports.append(report)

    # --- decoder ------------------------------------------------------------------------------------------------
    def _layer(self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._run is None:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        changed = self._run.before_layer(layer, hidden, kwargs)
        if changed is None:
            return None
        hidden, kwargs = changed[0], kwargs | changed[1]
        return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

    def _tap_decoder(self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._run is not None:
            hidden = args[0] if args else kwargs["hidden_states"]
            cos, sin = kwargs["position_embeddings"]
            self._run.tap = AttentionCapture(module, layer, hidden, cos, sin, kwargs.get("past_key_values"))

    # --- vision tower -------------------------------------------------------------------------------------------
    def _encode(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._vision = self._call = VisionCapture(self.family, self.family.grids(args, kwargs))

    def _encoded(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._call is not None:
            self._call.output = output

    def _tap_block(self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._call is not None:
            self._call.blocks[layer] = args[0] if args else kwargs["hidden_states"]

    def _tap_block_output(self, layer: int, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._call is not None:
            self._call.leaving[layer] = output[0] if isinstance(output, tuple) else output

    def _tap_projector(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._call is not None:
            self._call.entered = args[0] if args else next(iter(kwargs.values()))

    def _projected(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._call is not None:
            self._call.projected = output

    def _tap_vision(self, layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._call is not None:
            self._call.attentions[layer] = (args[0] if args else kwargs["hidden_states"], kwargs)
