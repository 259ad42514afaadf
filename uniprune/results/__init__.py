"""Stored results: predictions, run records, statistics, comparison of runs, tables. Imports no torch."""
