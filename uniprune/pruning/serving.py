"""Methods that a serving engine can run: those whose work is done before the language model gets a prompt."""

from __future__ import annotations

from dataclasses import dataclass

from uniprune.pruning.base import Pruner


@dataclass(frozen=True)
class Servable:
    """An answer to the question whether a serving engine can run a method.

    Attributes:
        yes: the answer.
        why: the reason, or for a yes what the method needs beside the projected tokens; empty if nothing.
    """

    yes: bool
    why: str = ""

    def __str__(self) -> str:
        return f"{'yes' if self.yes else 'no'}{f': {self.why}' * bool(self.why)}"


def servable(pruner: Pruner, num_layers: int = 32) -> Servable:
    """Return whether a serving engine can run a method in a decoder of `num_layers` layers.

    Such an engine lays out a prompt before its images are encoded, so the number of tokens must follow from an image's
    size; it caches what is left of an image under the image, so the choice must not depend on anything else; and it
    holds one sequence of tokens for all decoder layers.
    """
    stages = pruner.schedule(num_layers)
    layers = [stage.layer for stage in stages if stage.layer]
    if pruner.input_stage is not None:
        return Servable(False, "it changes images before they are processed, which a client can do")
    if any(stage.block is not None for stage in stages):
        return Servable(False, "it acts inside the vision tower, which a serving engine runs on whole images")
    if layers:
        return Servable(
            False, f"it prunes before decoder layer {layers[0]}, but all layers of a serving engine share one sequence"
        )
    if pruner.evict_from(num_layers) is not None:
        return Servable(False, "it evicts from the KV cache of some layers, which all share one block table")
    if not pruner.exact:
        return Servable(False, "it chooses its number of tokens, but a prompt is laid out before images are encoded")
    if pruner.scope == "prompt":
        return Servable(False, "it decides about all images of a prompt together, but images are encoded one by one")
    if pruner.prompt_aware and not pruner.needs_text:
        return Servable(False, "it reads the prompt's text beside the question, but an image is encoded without it")
    needs = ["quantities of the vision tower"] * bool(pruner.vision_layers)
    needs += ["the question with every request, as a part of the image's cache key"] * pruner.needs_text
    return Servable(True, " and ".join(f"with {need}" for need in needs))
