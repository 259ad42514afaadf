"""The engine: `with prune(model, pruner): model.generate(...)`, made of hooks only and gone without a trace on exit."""

from uniprune.engine.report import PrefillReport, RowReport, StageReport
from uniprune.engine.session import Sample, Session, prune

__all__ = ["PrefillReport", "RowReport", "Sample", "Session", "StageReport", "prune"]
