"""Small models for tests over all aggregators."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from wsi_ncmi.mil import ModelConfig, list_models, model_config


def config_with(name: str, **settings: Any) -> ModelConfig:
    """The config of a model with those of the settings that it has."""
    (found,) = (model for model in list_models() if model.name == name)
    known = {field.name for field in fields(found)}
    return model_config(name, **{key: value for key, value in settings.items() if key in known})
