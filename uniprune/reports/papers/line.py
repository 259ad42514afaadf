"""A printed number of a paper, with the key of ours."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from uniprune.evaluation.method_spec import MethodSpec, parse_settings


class Printed(BaseModel):
    """One number of a table, and the key of our number."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    row: str
    """The row's label, as printed."""
    model: str
    """Our name of the model."""
    method: str
    """Our name of the method; empty if we have none."""
    settings: str
    """Fields of the method as `--set` takes them, separated by blanks."""
    ratio: float
    """Keep ratio of our run."""
    benchmark: str
    """Our name of the benchmark; empty for a mean over the row."""
    column: str
    """The column's heading, as printed."""
    quantity: str
    """Quantity: "score", "average", "TTFT ms", …; see uniprune/reports/papers/measures.py."""
    value: str
    """The number as printed; empty if the source prints none or it is illegible."""
    spread: str
    """The number after its ±, if any."""
    erratum: str
    """Reason why it cannot be right, or "suspect: " and a reason for doubt; else empty. The value stays as printed."""
    note: str
    """Remark for the reader."""
    protocol: Literal["site", "average"] = "site"
    """Reach of the ratio of our run."""
    scale: float = 1.0
    """Printed score for one point of our headline score; ours is shown in the paper's unit."""
    averaged: bool = True
    """True if the printed mean over the row includes it."""

    part: Literal["", "hard", "easy", "hard known", "easy known"] = ""
    """Rows of the benchmark that it is about, as a run that resizes images parts them; empty for all."""
    parted_by: str = ""
    """That run's method and its fields, as `NAME FIELD=VALUE`; its ratio is `ratio`."""

    @property
    def place(self) -> tuple[str, str, float]:
        """Key of its row: label, model and ratio."""
        return self.row, self.model, self.ratio

    @property
    def number(self) -> float | None:
        """The printed number."""
        return float(self.value) if self.value else None

    def choice(self) -> MethodSpec:
        """Return our method with its fields.

        Raises:
            UserError: there is no such method or field.
        """
        return MethodSpec(self.method, self.ratio, settings=parse_settings(self.settings.split())).normalised()

    def parting(self) -> MethodSpec:
        """Return the method that parts the rows.

        Raises:
            UserError: there is no such method or field.
        """
        name, *settings = self.parted_by.split()
        return MethodSpec(name, self.ratio, settings=parse_settings(settings)).normalised()
