"""Foundations of every package: errors, files, configuration, progress, logging, provenance."""
