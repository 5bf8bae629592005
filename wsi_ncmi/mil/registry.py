"""All aggregators by name; importing this does not import torch."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from wsi_ncmi.errors import InputError
from wsi_ncmi.mil.options import ModelOptions

if TYPE_CHECKING:
    from wsi_ncmi.mil.base import Aggregator

__all__ = ["ModelInfo", "build_model", "list_models"]


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One entry of the list of aggregators.

    Attributes:
        name: Name in configurations and on the command line.
        paper: Where the model comes from.
        summary: One line on how it pools.
        module: Module of the class.
        class_name: The :class:`~wsi_ncmi.mil.base.Aggregator` in it.
        settings: Fields of :class:`ModelOptions` that its constructor takes.
    """

    name: str
    paper: str
    summary: str
    module: str
    class_name: str
    settings: tuple[str, ...]


_ATTENTION = ("hidden", "attention", "dropout", "input_dropout")
_POOL = ("hidden", "dropout", "input_dropout")
_MODELS = (
    ModelInfo(
        name="abmil",
        paper="Ilse et al. 2018, arXiv 1802.04712, eq. 9",
        summary="gated attention pooling",
        module="wsi_ncmi.mil.abmil",
        class_name="GatedABMIL",
        settings=_ATTENTION,
    ),
    ModelInfo(
        name="abmil_plain",
        paper="Ilse et al. 2018, arXiv 1802.04712, eq. 8",
        summary="attention pooling without the gate",
        module="wsi_ncmi.mil.abmil",
        class_name="ABMIL",
        settings=_ATTENTION,
    ),
    ModelInfo(
        name="mean",
        paper="Ilse et al. 2018, arXiv 1802.04712, section 2.3",
        summary="mean of the projected instances",
        module="wsi_ncmi.mil.pooling",
        class_name="MeanPool",
        settings=_POOL,
    ),
    ModelInfo(
        name="max",
        paper="Ilse et al. 2018, arXiv 1802.04712, section 2.3",
        summary="maximum of the projected instances, element by element",
        module="wsi_ncmi.mil.pooling",
        class_name="MaxPool",
        settings=_POOL,
    ),
)


def list_models() -> tuple[ModelInfo, ...]:
    """All aggregators."""
    return _MODELS


def build_model(options: ModelOptions, in_features: int) -> Aggregator:
    """Makes the aggregator that the options describe.

    Args:
        options: Name and settings.
        in_features: Width D of the instance features.

    Returns:
        The aggregator, on the CPU, in float32, with freshly drawn weights.

    Raises:
        InputError: The name is unknown.
    """
    entries = {info.name: info for info in _MODELS}
    info = entries.get(options.name)
    if info is None:
        near = difflib.get_close_matches(options.name, entries, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(entries)}."
        raise InputError(f"There is no aggregator named '{options.name}'; {hint}")
    make = cast("Callable[..., Aggregator]", getattr(importlib.import_module(info.module), info.class_name))
    model = make(in_features, **{name: getattr(options, name) for name in info.settings})
    model.standardise = options.standardise
    return model
