"""Experiments of our own, outside the wheel."""
