"""Training from configuration values: what ``train``, ``compare`` and ``grid`` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.core.progress import ProgressReporter
from wsi_ncmi.mil import list_models
from wsi_ncmi.workflows.config import JobConfig, load_config
from wsi_ncmi.workflows.grid import GridRequest, train_grid
from wsi_ncmi.workflows.result import JobResult
from wsi_ncmi.workflows.training import TrainingRequest, train

__all__ = ["grid_configured", "train_configured"]


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
    _must_exist((config.features, *config.further_features))
    request = TrainingRequest.of_config(
        config, config.features, out, overwrite=overwrite, allow_leak=allow_leak
    )
    return train(request, progress)


def grid_configured(
    features: Sequence[str],
    models: Sequence[str],
    values: Mapping[str, Any],
    out: Path,
    overrides: Sequence[str] = (),
    progress: ProgressReporter | None = None,
    *,
    overwrite: bool = False,
    allow_leak: bool = False,
) -> JobResult:
    """Trains a grid over several sets of features and several models, which share all else.

    Args:
        features: ``[NAME=]PATH[+PATH]`` for each encoder; the name is else the last part of the first path.
        models: Names of aggregators; their settings are those of the configuration's ``model``.
        values: Nested values of the configuration; ``losses`` is needed.
        out: Folder of the grid.
        overrides: ``a.b=value``, applied last.
        progress: Told about every epoch.
        overwrite: Replace runs of another configuration.
        allow_leak: Train on a split that leaks.

    Raises:
        InputError: Wrong input; nothing was started.
    """
    chosen = _read_with(models, values, overrides)
    config = next(iter(chosen.values()))
    encoders = dict(map(_named_features, features))
    if len(encoders) < len(features):
        raise InputError("Two sets of features have the same name; write them as NAME=PATH.")
    for paths in encoders.values():
        _must_exist(paths)
    base = TrainingRequest.of_config(
        config, next(iter(encoders.values()))[0], out, overwrite=overwrite, allow_leak=allow_leak
    )
    of_models = {name: each.model for name, each in chosen.items()}
    return train_grid(GridRequest(base=base, encoders=encoders, models=of_models, out=out), progress)


def _read_with(
    models: Sequence[str], values: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, JobConfig]:
    """The configuration with each of the models; a setting of ``model`` goes to those that have it."""
    settings = {model.name: {field.name for field in fields(model)} for model in list_models()}

    def concerns(override: str, name: str) -> bool:
        key = override.partition("=")[0].split(".")
        having = [model for model in models if len(key) > 1 and key[1] in settings.get(model, ())]
        return key[0] != "model" or name in having or not having

    return {
        name: load_config(
            None, [each for each in overrides if concerns(each, name)], {**values, "model": {"name": name}}
        )
        for name in models
    }


def _named_features(text: str) -> tuple[str, tuple[Path, ...]]:
    name, equals, rest = text.partition("=")
    if not equals or Path(text).exists():
        name, rest = "", text
    paths = (Path(text),) if Path(rest).exists() and not equals else tuple(map(Path, rest.split("+")))
    return name or paths[0].name.removesuffix(".npz"), paths


def _must_exist(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise InputError(f"The features {path} do not exist; run 'wsi-ncmi extract' first.")
