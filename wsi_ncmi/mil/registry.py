"""Aggregators by name: listing, building and measuring them; importing this does not import torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast

from wsi_ncmi.core.arguments import described, whole_number
from wsi_ncmi.core.config import config_from
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.config import MODELS, AnyModel, ModelConfig

if TYPE_CHECKING:
    from wsi_ncmi.mil.base import Aggregator

_SET_AFTERWARDS = ("feature_dropout", "mixup", "standardise")


def list_models() -> tuple[type[ModelConfig], ...]:
    """The config classes of all aggregators."""
    return tuple(MODELS.values())


def model_config(name: str = "abmil", **settings: Any) -> ModelConfig:
    """The config of the aggregator of that name; a setting that isn't given takes its default.

    Raises:
        InputError: There is no such aggregator or setting, or a value is out of its range.
    """
    return config_from(AnyModel, {"name": name, **settings}, "the model")


def build_model(
    config: ModelConfig | str, in_features: int, num_classes: int | None = None, **settings: Any
) -> Aggregator:
    """Makes a model: an aggregator, with ``num_classes`` under a classifier.

    Args:
        config: Its config, or its name.
        in_features: Width D of the instance features.
        num_classes: Number of classes C; None leaves the classifier out: the model gives slide embeddings
            (B, ``embedding_width``), which a loss made with ``in_features`` takes. Models with class-wise
            parts (``needs_classes``) can't do without.
        **settings: Settings that differ from those of ``config``, or from the defaults.

    Returns:
        The model (see :class:`~wsi_ncmi.mil.Aggregator`), on the CPU, in float32, with freshly drawn weights.

    Raises:
        InputError: The name or a setting is wrong, or the number of classes is missing or below 2 where it is
            needed.

    Example:
        >>> import torch
        >>> model = build_model("abmil", in_features=512, num_classes=3, hidden=64)
        >>> model([torch.randn(100, 512), torch.randn(7, 512)]).shape
        torch.Size([2, 3])
    """
    if isinstance(config, str):
        config = model_config(config, **settings)
    elif not isinstance(config, ModelConfig):
        raise InputError(f"A model is given by its name or its config, got {described(config)}.")
    elif settings:
        config = model_config(**{**asdict(config), **settings})
    model = build_aggregator(config, in_features, num_classes)
    model.add_head(num_classes)
    return model


def build_aggregator(config: ModelConfig, in_features: int, num_classes: int | None = None) -> Aggregator:
    """Makes an aggregator without a classifier, for a criterion that has its own.

    Args:
        config: Its config.
        in_features: Width D of the instance features.
        num_classes: Number of classes C, for the models with class-wise parts (``needs_classes``).

    Raises:
        InputError: A setting is wrong, or the number of classes is below 2 where it is needed.
    """
    arguments: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in ("name", *_SET_AFTERWARDS) and value is not None:
            arguments["config" if is_dataclass(value) else field.name] = value
    if config.needs_classes:
        what = f"The number of classes, num_classes, of '{config.name}', which has parts for each class,"
        arguments["num_classes"] = whole_number(num_classes, what, 2)
    module, _, name = config.aggregator.partition(":")
    make = cast("Callable[..., Aggregator]", getattr(importlib.import_module(module), name))
    model = make(in_features, **arguments)
    model.head = None
    for setting in _SET_AFTERWARDS:
        setattr(model, setting, getattr(config, setting))
    return model


@dataclass(frozen=True)
class ModelCost:
    """The cost of a model.

    Attributes:
        parameters: Trainable numbers of the aggregator, without the criterion's head.
        flops_per_instance: Operations of the matrix products and convolutions of a forward pass in
            evaluation mode, over the instances (a multiplication and an addition are two).
        instances: The bag that it was measured on; it matters for full attention.
    """

    parameters: int
    flops_per_instance: float
    instances: int


def measure_model(
    config: ModelConfig, in_features: int = 1024, num_classes: int = 2, instances: int = 1024
) -> ModelCost:
    """Measures a model on a random bag, on the CPU.

    Args:
        config: The model.
        in_features: Width D of the instance features.
        num_classes: C.
        instances: Instances of the bag.

    Raises:
        InputError: As :func:`build_model`.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from wsi_ncmi.mil.bags import BagBatch

    with torch.random.fork_rng(devices=[]):
        model = build_aggregator(config, in_features, num_classes).eval()
        batch = BagBatch.pack([torch.randn(instances, in_features)])
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch)
    return ModelCost(parameters, counter.get_total_flops() / instances, instances)
