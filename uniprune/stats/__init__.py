"""How sure a score is: bootstrap estimates, paired comparisons, ranks. What each is, and is not: docs/statistics.md."""

from uniprune.stats.comparisons import Comparison, Standing, holm, mcnemar, paired, standings
from uniprune.stats.estimate import Estimate, mean, resample, resampled_means

__all__ = [
    "Comparison",
    "Estimate",
    "Standing",
    "holm",
    "mcnemar",
    "mean",
    "paired",
    "resample",
    "resampled_means",
    "standings",
]
