"""What a foreign checkpoint becomes: options and states of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from wsi_ncmi.mil.config import ModelConfig

__all__ = ["Translation"]


@dataclass(frozen=True)
class Translation:
    """The numbers of a foreign model under this package's names.

    Attributes:
        options: The aggregator that they fit.
        in_features: Width D of the instance features.
        num_classes: C.
        aggregator: State of the aggregator without its input statistics.
        head: State of the linear head on the embedding: ``weight`` (C, E) and ``bias`` (C,).
    """

    options: ModelConfig
    in_features: int
    num_classes: int
    aggregator: Mapping[str, Tensor]
    head: Mapping[str, Tensor]
