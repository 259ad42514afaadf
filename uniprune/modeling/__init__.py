"""Models: adapters of families, catalogue, loading, tiny and random-weight models, operation counts."""
