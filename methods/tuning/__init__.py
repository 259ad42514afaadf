"""Strategies for fine-tuning: which samples (`samples/`) and which tokens (`tokens/`) to train on."""
