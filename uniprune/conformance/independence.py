"""Checks of what a decision must not depend on, and of what must not change because of it."""

from __future__ import annotations

import os
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uniprune.conformance.subject import RATIO, Run, Subject
from uniprune.conformance.verdicts import Verdict, judged, passed, skipped
from uniprune.pruner import Pruner

NEAR = 1e-3
"""Largest difference of logits that padding may cause, relative to their largest magnitude."""


def repeatable(subject: Subject) -> Verdict:
    """The same sample gives the same picks and logits again, whatever was drawn at random before (resuming)."""
    with scrambled_randomness(1):
        again = subject.run()
    changed = [d for d in subject.witness().decisions if d.again().picks != d.picks]
    equal = torch.equal(subject.baseline.logits, again.logits)
    problems = different(subject.baseline, again)
    return judged([*problems, *["a decision asked again changes"] * bool(changed), *["logits differ"] * (not equal)])


def sample_order(subject: Subject) -> Verdict:
    """A sample's picks do not depend on the samples before it."""
    backwards = subject.run(prompts=subject.prompts[::-1])
    return judged(different(subject.baseline, backwards))


def batch(subject: Subject) -> Verdict:
    """A row of a left-padded batch of three gives the picks and logits it gives alone."""
    alone, together = (subject.variant(batch=size).run() for size in (1, 3))
    gap = float((alone.logits - together.logits).abs().max() / alone.logits.abs().max())
    problems = different(alone, together)
    return judged([*problems, *[f"logits differ by {gap:.1e} of their range"] * (gap > NEAR)])


def several_images(subject: Subject) -> Verdict:
    """Before the language model, an image's picks do not change with the other image of its prompt."""
    stages = subject.stages()
    if not stages or stages[0].layer > 0:
        return skipped("decides inside the language model, where images have mixed" if stages else "prunes nothing")
    if subject.pruner.scope != "image":
        return skipped('scope="prompt" lets images compete')
    both = subject.prompts[1]
    other = subject.prompt("other", images=2)
    mixed = {
        0: (both.pictures[0], other.pictures[1]),
        1: (other.pictures[0], both.pictures[1]),
    }
    first = subject.run(prompts=[both]).picks[both.name][0]
    problems = []
    for image, pictures in mixed.items():
        prompt = type(both)(both.ids, both.question, pictures, both.name)
        if subject.run(prompts=[prompt]).picks[both.name][0][image] != first[image]:
            problems.append(f"image {image + 1} of 2 changes with the other one")
    return judged(problems)


def attention_kernels(subject: Subject) -> Verdict:
    """Eager and fused attention lead to the same picks."""
    other = "eager" if subject.attention != "eager" else "sdpa"
    return judged(different(subject.baseline, subject.variant(attention=other).run()))


def random_state(subject: Subject) -> Verdict:
    """The random numbers of torch, NumPy and Python go on as if nothing had happened."""
    return _unchanged(subject, {
        "torch": lambda: torch.get_rng_state().numpy().tobytes(),
        "numpy": lambda: pickle.dumps(np.random.get_state()),  # noqa: NPY002  the global state is what is looked at
        "random": lambda: random.getstate(),
    })  # fmt: skip


def process_state(subject: Subject) -> Verdict:
    """Gradient mode, default precision, threads, environment variables and working directory stay."""
    return _unchanged(subject, {
        "gradient mode": torch.is_grad_enabled,
        "inference mode": torch.is_inference_mode_enabled,
        "default dtype": torch.get_default_dtype,
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
        "matmul precision": torch.get_float32_matmul_precision,
        "threads": torch.get_num_threads,
        "environment variables": lambda: dict(os.environ),
        "working directory": Path.cwd,
    })  # fmt: skip


def model_untouched(subject: Subject) -> Verdict:
    """Weights, buffers, hooks and modes of the model are as before."""
    model = subject.model
    return _unchanged(subject, {
        "weights": lambda: {n: (p.data_ptr(), float(p.detach().double().sum())) for n, p in tensors(model)},
        "hooks": lambda: [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "forwards": lambda: [name for name, m in model.named_modules() if "forward" in vars(m)],
        "modes": lambda: [m.training for m in model.modules()],
        "gradients": lambda: [(p.requires_grad, p.grad is None) for p in model.parameters()],
    })  # fmt: skip


def method_untouched(subject: Subject) -> Verdict:
    """The method object, its class and its module hold what they held before: it remembers nothing."""
    pruner = subject.at(RATIO)
    parts = {id(stage.pruner): stage.pruner for stage in pruner.schedule(len(subject.layout.layers))}
    return _unchanged(
        subject, {type(p).__name__: lambda p=p: memory(p) for p in (pruner, *parts.values())}, pruner  # type: ignore[misc]
    )


def memory(pruner: Pruner) -> str:
    """Text of everything that a method can remember in its own object, its class and its module."""
    owners = [vars(pruner), vars(type(pruner)), vars(sys.modules[type(pruner).__module__])]
    plain = (int, float, str, list, dict, set, tuple, type(None))
    held = [{k: v for k, v in owner.items() if isinstance(v, plain) and not k.startswith("__")} for owner in owners]
    return repr(held)


def tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


@contextmanager
def scrambled_randomness(seed: int) -> Iterator[None]:
    """Inside the block all global random numbers are others; afterwards they go on as before."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def different(one: Run, other: Run) -> list[str]:
    """What to say when two runs of the same samples kept different tokens; empty when they did not."""
    changed = [name for name in one.picks if one.picks[name] != other.picks[name]]
    return [f"{len(changed)} of {len(one.picks)} samples keep other tokens"] * bool(changed)


def _unchanged(subject: Subject, looks: dict[str, Callable[[], Any]], pruner: Pruner | None = None) -> Verdict:
    """Failed with the names of what a run changed."""
    before = {name: look() for name, look in looks.items()}
    subject.run(pruner)
    changed = [name for name, look in looks.items() if look() != before[name]]
    return judged([f"changed: {', '.join(changed)}"]) if changed else passed()
