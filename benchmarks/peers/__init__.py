"""Comparison with other programs on the same slides, weights and features: ``python -m benchmarks.peers``."""
