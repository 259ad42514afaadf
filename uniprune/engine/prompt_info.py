"""A prompt's identity and question, as a caller of the engine gives them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from uniprune.errors import UserError


@dataclass(frozen=True)
class PromptInfo:
    """Identity of a prompt.

    Attributes:
        id: seeds the prompt's randomness, so that no draw depends on batch or order.
        question: [M] token ids of the bare question, for methods that read `view.prompt`.
        positions: [M] places of the question's tokens in the prompt, counted without padding, for methods that read
            attention from them; `QuestionFinder` finds them. Without them the ids of `question` are searched for.
    """

    id: str
    question: Tensor | None = None
    positions: Tensor | None = None

    def placed(self, real: Tensor) -> Tensor:
        """Return the question's tokens [M] among those of the prompt.

        Args:
            real: [L] positions in the batch of the prompt's tokens, without padding.

        Raises:
            UserError: `positions` are not given, or name tokens that the prompt does not have.
        """
        places = self.positions
        if places is None:
            raise UserError(f"sample {self.id!r} has no PromptInfo.positions; expected the places of its question")
        if len(places) and not 0 <= int(places.min()) <= int(places.max()) < len(real):
            raise UserError(
                f"PromptInfo.positions of sample {self.id!r} are {int(places.min())} to {int(places.max())}, "
                f"but the prompt has {len(real)} tokens; count from 0, without padding"
            )
        return real[places.to(real.device)]
