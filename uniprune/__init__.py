"""UniPrune: a benchmark harness for visual token pruning in multimodal large language models."""

__version__ = "0.1.0"
