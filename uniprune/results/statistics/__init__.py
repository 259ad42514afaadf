"""Uncertainty of scores: bootstrap estimates, paired comparisons, ranks; explained in docs/statistics.md."""

from uniprune.results.statistics.comparisons import Comparison, RankInterval, holm, mcnemar, paired, standings
from uniprune.results.statistics.estimate import Estimate, mean, resample, resampled_means

__all__ = [
    "Comparison",
    "Estimate",
    "RankInterval",
    "holm",
    "mcnemar",
    "mean",
    "paired",
    "resample",
    "resampled_means",
    "standings",
]
