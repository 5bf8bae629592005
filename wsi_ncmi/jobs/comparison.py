"""Training and comparing losses from configuration values: what ``train`` and ``compare`` both do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsi_ncmi.errors import InputError
from wsi_ncmi.jobs.config_file import load_config
from wsi_ncmi.jobs.result import JobResult
from wsi_ncmi.jobs.training import TrainingRequest, train
from wsi_ncmi.progress import ProgressReporter

__all__ = ["train_configured"]


def train_configured(
    values: Mapping[str, Any],
    out: Path,
    overrides: Sequence[str] = (),
    progress: ProgressReporter | None = None,
    *,
    overwrite: bool = False,
    allow_leak: bool = False,
) -> JobResult:
    """Trains on ready features; several losses share folds, seeds and initial weights and are compared.

    Args:
        values: Nested values of the job's configuration; ``features`` and ``losses`` are needed.
        out: Run folder.
        overrides: ``a.b=value``, applied last.
        progress: Told about every epoch.
        overwrite: Replace runs of another configuration.
        allow_leak: Train on a split that leaks.

    Returns:
        Files of the run; with several losses also ``compare`` (a row a run) and ``differences``.
    """
    config = load_config(None, overrides, values)
    if config.features is None:
        raise InputError("No features were named; give --features FOLDER.")
    if not config.features.exists():
        raise InputError(f"The features {config.features} do not exist; run 'wsi-ncmi extract' first.")
    request = TrainingRequest.of_config(
        config, config.features, out, overwrite=overwrite, allow_leak=allow_leak
    )
    return train(request, progress)
