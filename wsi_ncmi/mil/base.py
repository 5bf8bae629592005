"""The interface of all aggregators: a batch of bags to slide embeddings and instance attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsi_ncmi.errors import InputError
from wsi_ncmi.mil.bags import BagBatch

__all__ = ["Aggregator", "AggregatorOutput", "BagBatch"]


@dataclass(frozen=True)
class AggregatorOutput:
    """What an aggregator makes of a batch.

    Attributes:
        embedding: One vector a bag, (B, E).
        attention: Weight of each instance in its bag, (ΣN,), summing to 1 within the bag.
    """

    embedding: Tensor
    attention: Tensor


class Aggregator(nn.Module, ABC):
    """Base of the multiple-instance models; the classifier is not here but in the criterion.

    Args:
        in_features: Width D of the instance features.
        embedding_width: Width E of the slide embedding.

    Attributes:
        standardise: Whether each feature is brought to mean 0 and deviation 1 (over the training instances,
            see :meth:`set_input_statistics`) before anything else.
        input_mean: (D,), part of the state.
        input_scale: (D,), one over the deviation, part of the state.

    Raises:
        InputError: A width below one.
    """

    def __init__(self, in_features: int, embedding_width: int) -> None:
        super().__init__()
        if in_features < 1 or embedding_width < 1:
            raise InputError(
                f"An aggregator needs widths of at least 1, got {in_features} → {embedding_width}."
            )
        self.in_features = in_features
        self.embedding_width = embedding_width
        self.standardise = False
        self.input_mean: Tensor
        self.input_scale: Tensor
        self.register_buffer("input_mean", torch.zeros(in_features))
        self.register_buffer("input_scale", torch.ones(in_features))

    def set_input_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Sets what ``standardise`` subtracts and divides by.

        Args:
            mean: Mean of each feature over the training instances, (D,).
            deviation: Standard deviation, (D,); a feature that never varies is only centred.
        """
        self.input_mean.copy_(mean)
        self.input_scale.copy_(torch.where(deviation > 0, 1.0 / deviation.clamp_min(1e-12), 1.0))

    def prepared(self, batch: BagBatch) -> Tensor:
        """The instance features as the model takes them: its dtype, standardised where asked, (ΣN, D)."""
        features = batch.features.to(self.input_mean.dtype)
        return (features - self.input_mean) * self.input_scale if self.standardise else features

    @abstractmethod
    def forward(self, batch: BagBatch) -> AggregatorOutput:
        """Embeds every bag of the batch.

        Args:
            batch: Packed bags with features of width ``in_features``, in any floating dtype.

        Returns:
            Embeddings (B, E) and instance attention (ΣN,).
        """
