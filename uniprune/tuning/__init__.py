"""Fine-tuning with dynamic pruning: which samples of a batch, and which tokens of a sample, are worth a training step.

Q-Tuning (see docs/q-tuning.md) and its baselines as pairs of strategies, one for samples and one for tokens.
"""
