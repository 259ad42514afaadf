"""The engine: `with prune(model, pruner): model.generate(...)`, made of hooks only and gone without a trace on exit."""

from uniprune.engine.earlier_turns import next_turn
from uniprune.engine.question import PromptInfo, QuestionFinder
from uniprune.engine.report import PrefillReport, RowReport, StageReport
from uniprune.engine.session import Session, prune

__all__ = ["PrefillReport", "PromptInfo", "QuestionFinder", "RowReport", "Session", "StageReport", "next_turn", "prune"]
