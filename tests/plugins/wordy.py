"""A method that needs the question, and a benchmark row that has none."""

from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from tests.plugins.small_benchmark import Small
from uniprune.evaluation.dataset import DataOptions, Request
from uniprune.modeling.messages import Part
from uniprune.pruning.base import PreLLM
from uniprune.registry import register_benchmark, register_method


@register_method("wordy")
@dataclass(frozen=True, kw_only=True)
class Wordy(PreLLM):
    """Tokens most like the question's first token."""

    needs_text: ClassVar[bool] = True

    def select(self, view, keep):
        return (view.tokens @ view.prompt[0]).topk(keep).indices


class Silent(Small):
    """Images without a question."""

    def _request(self, i: int) -> Request:
        return Request(str(i), lambda: [Part(image=Image.new("RGB", (96, 96)))], "", max_new_tokens=4)


@register_benchmark("silent", suite="small", ability="perception", metric="answered", judge=False)
def silent(options: DataOptions) -> Silent:
    """Twelve images without a question."""
    return Silent("silent", broken=False)
