"""Uncertainty of scores: bootstrap estimates, paired comparisons, ranks; explained in docs/statistics.md."""

from uniprune.results.statistics.bootstrap import resample, resampled_means
from uniprune.results.statistics.comparisons import Comparison, RankInterval, holm, paired, standings
from uniprune.results.statistics.estimate import FEWEST, Estimate, jointly, mean

__all__ = [
    "FEWEST",
    "Comparison",
    "Estimate",
    "RankInterval",
    "holm",
    "jointly",
    "mean",
    "paired",
    "resample",
    "resampled_means",
    "standings",
]
