"""What a model costs: parameters and multiplications, measured on the model itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from wsi_ncmi.mil.bags import BagBatch
from wsi_ncmi.mil.config import ModelConfig, build_model

__all__ = ["ModelCost", "measure_model"]


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
    options: ModelConfig, in_features: int = 1024, num_classes: int = 2, instances: int = 1024
) -> ModelCost:
    """Measures a model on a random bag, on the CPU.

    Args:
        options: The model.
        in_features: Width D of the instance features.
        num_classes: C.
        instances: Instances of the bag.

    Raises:
        InputError: As :func:`build_model`.
    """
    with torch.random.fork_rng(devices=[]):
        model = build_model(options, in_features, num_classes).eval()
        batch = BagBatch.pack([torch.randn(instances, in_features)])
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch)
    return ModelCost(parameters, counter.get_total_flops() / instances, instances)
