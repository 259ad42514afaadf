"""Fine-tuning with dynamic pruning of samples and tokens.

Q-Tuning (arXiv 2509.23873, docs/q-tuning.md) and its baselines, as pairs of a sample strategy and a token strategy.
"""
