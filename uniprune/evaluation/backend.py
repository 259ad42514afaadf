"""Interface of what answers the rows of a run, and the usual answer: a model of transformers in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from uniprune.evaluation.dataset import Request
from uniprune.evaluation.environment import environment
from uniprune.evaluation.feature_cache import FeatureCache
from uniprune.evaluation.options import RunOptions
from uniprune.evaluation.runner import Runner
from uniprune.modeling.loading import LoadedModel, with_weights
from uniprune.pruning.base import Pruner
from uniprune.results.predictions import Prediction
from uniprune.results.records import Environment, MethodRecord, Setup


class Predictor(Protocol):
    """Answers rows under one method."""

    def predictions(
        self, requests: Sequence[Request], data: str = "", benchmark: str = ""
    ) -> Iterator[list[Prediction]]:
        """Yield predictions of rows of a benchmark, whose fingerprint is `data`, in portions to be stored at once."""


class Backend(Protocol):
    """Origin of predictions. It is part of a plan, which may be sent to another process."""

    def load(self, outlined: LoadedModel) -> LoadedModel:
        """Return a model with what its runs need beside the outline."""

    def described(self, model: LoadedModel) -> str:
        """Return where rows of a model are answered, for a terminal."""

    def setup(self, model: LoadedModel, method: MethodRecord) -> dict[str, Any]:
        """Return the fields of `Setup` about the machine that answers, for a run of a method.

        Raises:
            UserError: it cannot answer such a run.
        """

    def predictor(
        self,
        model: LoadedModel,
        pruner: Pruner,
        options: RunOptions,
        average: float | None,
        shared: FeatureCache | None,
        setup: Setup,
    ) -> AbstractContextManager[Predictor]:
        """Return what answers the rows of a run; `average` and `shared` are those of `Runner`."""

    def environment(self, setup: Setup) -> Environment:
        """Return software and machine of the predictions."""


@dataclass(frozen=True)
class Transformers:
    """The model in this process, with the engine's hooks."""

    def load(self, outlined: LoadedModel) -> LoadedModel:
        """Load the weights."""
        return with_weights(outlined)

    def described(self, model: LoadedModel) -> str:
        """Return precision, kernels and device."""
        return str(model.placement)

    def setup(self, model: LoadedModel, method: MethodRecord) -> dict[str, Any]:
        """Return precision, kernels and device of this process."""
        return {
            "dtype": model.precision,
            "attention": model.placement.attention,
            "tower_attention": model.placement.tower,
            "device": model.placement.kind,
        }

    def predictor(
        self,
        model: LoadedModel,
        pruner: Pruner,
        options: RunOptions,
        average: float | None,
        shared: FeatureCache | None,
        setup: Setup,
    ) -> AbstractContextManager[Predictor]:
        """Return a runner."""
        settings = (options.batch_size, average, options.workers, shared, options.image_decoding)
        more = (options.question, options.sampling, options.share_prefix, options.keep_selections)
        return Runner(model, pruner, *settings, *more)

    def environment(self, setup: Setup) -> Environment:
        """Return this process's."""
        return environment(setup.device)


IN_PROCESS = Transformers()
"""The usual backend."""
