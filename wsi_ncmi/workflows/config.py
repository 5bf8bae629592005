"""Configuration of a whole job: that of the extraction and that of the training in one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter

from wsi_ncmi.core.config import configclass
from wsi_ncmi.extraction.config import ExtractConfig
from wsi_ncmi.training.config import TrainConfig

__all__ = ["JobConfig", "config_adapter", "recorded"]

# They say what one call does, not what the job is.
_RUN_TIME_KEYS = frozenset({"only", "shard", "inventory", "overwrite", "allow_leak"})


@configclass
class JobConfig(TrainConfig, ExtractConfig):
    """A whole job, from slides (or features) and labels to the report.

    Attributes:
        slides: Folder of slides; None when ``features`` is given.
        features: Features that exist already (folder or packed ``.npz``); None extracts them from ``slides``.
        out: Output folder: ``features/``, ``tissue/``, ``thumbnails/``, ``ledger.csv`` and ``run/``.
        overwrite: Replace features and runs of another configuration.
        variants: Name → keys of this configuration that differ; each is a run of its own in ``OUT/run/NAME``,
            and those with the same features share them. Empty = one run, in ``OUT/run``.
    """

    out: Path = Path("out")
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)


def config_adapter() -> TypeAdapter[JobConfig]:
    """The pydantic adapter of the configuration (validation, JSON schema, dumping)."""
    return TypeAdapter(JobConfig)


def recorded(config: JobConfig) -> dict[str, Any]:
    """The configuration as JSON-ready values, every default written out, without what concerns one call."""
    content = config_adapter().dump_python(config, mode="json")
    return {key: value for key, value in content.items() if key not in _RUN_TIME_KEYS}
