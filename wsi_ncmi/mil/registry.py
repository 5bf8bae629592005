"""All aggregators by name; importing this does not import torch."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.catalogue import MODELS, ModelInfo
from wsi_ncmi.mil.config import ModelConfig

if TYPE_CHECKING:
    from wsi_ncmi.mil.base import Aggregator

__all__ = ["ModelInfo", "build_model", "list_models", "model_info"]


def list_models() -> tuple[ModelInfo, ...]:
    """All aggregators."""
    return MODELS


def model_info(name: str) -> ModelInfo:
    """The entry of one aggregator.

    Raises:
        InputError: The name is unknown; the nearest one is named.
    """
    entries = {info.name: info for info in MODELS}
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(entries)}."
        raise InputError(f"There is no aggregator named '{name}'; {hint}")
    return entries[name]


def build_model(options: ModelConfig, in_features: int, num_classes: int | None = None) -> Aggregator:
    """Makes the aggregator that the options describe.

    Args:
        options: Name and settings; a setting that is None takes the model's own (published) default.
        in_features: Width D of the instance features.
        num_classes: Number of classes C, for the models with class-wise parts (``ModelInfo.needs_classes``).

    Returns:
        The aggregator, on the CPU, in float32, with freshly drawn weights.

    Raises:
        InputError: The name is unknown, the number of classes is missing or below 2 where it is needed, or
            settings don't fit each other.
    """
    info = model_info(options.name)
    arguments: dict[str, Any] = {
        name: getattr(options, name) for name in info.settings if getattr(options, name) is not None
    }
    if info.group is not None:
        arguments["options"] = getattr(options, info.group)
    if info.needs_classes:
        if num_classes is None or num_classes < 2:
            raise InputError(
                f"The aggregator '{info.name}' has parts for each class and needs the number of classes, at "
                f"least 2, got {num_classes}; build it with build_model(options, in_features, num_classes)."
            )
        arguments["num_classes"] = num_classes
    make = cast("Callable[..., Aggregator]", getattr(importlib.import_module(info.module), info.class_name))
    model = make(in_features, **arguments)
    model.standardise = options.standardise
    model.feature_dropout = options.feature_dropout
    model.mixup = options.mixup
    return model
