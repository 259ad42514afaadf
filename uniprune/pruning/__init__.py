"""The interface of pruning methods, and selection rules that they share."""
