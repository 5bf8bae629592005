"""What every package rests on: errors, files, configuration, progress, logging, provenance."""
