"""Benchmarks: VLMEvalKit's datasets and scoring, registered one name each. See docs/benchmarks.md."""
