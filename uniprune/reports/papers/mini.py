"""Papers' sweeps on embedded models and benchmarks, which show that a table runs; its numbers mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from uniprune.errors import UserError
from uniprune.evaluation.config import SweepFile
from uniprune.reports.papers.line import Printed
from uniprune.utils.paths import ROOT
from uniprune.utils.yaml_file import read_model

MINI = ROOT / "configs" / "mini.yaml"


class StandIns(BaseModel):
    """Stand-ins for models and benchmarks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[str, str]
    """Model -> embedded model of its family."""
    data: dict[str, str]
    """Benchmark -> generated benchmark of its kind."""

    def sweep(self, sweep: SweepFile) -> SweepFile:
        """Return the same grid on stand-ins, under the protocol "site": they have too few layers for low averages.

        Raises:
            UserError: a stand-in is missing.
        """
        blocks = [
            block.model_copy(
                update={
                    "model": self._all("model", block.model, self.models),
                    "data": None if block.data is None else self._all("benchmark", block.data, self.data),
                    "suite": None if block.suite is None else "mini",
                    "protocol": "site",
                }
            )
            for block in sweep.runs
        ]
        return sweep.model_copy(update={"title": f"{sweep.title} (on stand-ins)", "runs": blocks})

    def line(self, line: Printed) -> Printed:
        """Return a printed number to be joined with runs on stand-ins."""
        model = self._all("model", [line.model], self.models)[0]
        data = self._all("benchmark", [line.benchmark], self.data)[0] if line.benchmark else ""
        return line.model_copy(update={"model": model, "benchmark": data, "protocol": "site"})

    def _all(self, kind: str, names: Sequence[str], table: Mapping[str, str]) -> list[str]:
        """Return the stand-ins of names, each once."""
        for name in names:
            if name not in table and name not in table.values():
                raise UserError(f"{MINI} names no stand-in for {kind} {name!r}; add one")
        return list(dict.fromkeys(table.get(name, name) for name in names))


def read_stand_ins(path: Path = MINI) -> StandIns:
    """Read configs/mini.yaml."""
    return read_model(path, StandIns)
