"""Uncertainty of scores: bootstrap estimates, paired comparisons, ranks; explained in docs/statistics.md."""

from uniprune.results.statistics.bootstrap import resample, resampled_means
from uniprune.results.statistics.comparisons import Comparison, RankInterval, holm, paired, standings
from uniprune.results.statistics.estimate import FEWEST, Estimate, jointly, mean
from uniprune.results.statistics.linear import normal_means
from uniprune.results.statistics.many import intervals, ratios
from uniprune.results.statistics.power import Equivalence, detectable_by, detectable_on, equivalence

__all__ = [
    "FEWEST",
    "Comparison",
    "Equivalence",
    "Estimate",
    "RankInterval",
    "detectable_by",
    "detectable_on",
    "equivalence",
    "holm",
    "intervals",
    "jointly",
    "mean",
    "normal_means",
    "paired",
    "ratios",
    "resample",
    "resampled_means",
    "standings",
]
