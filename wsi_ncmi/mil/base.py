"""The interface of all aggregators: a batch of bags to slide embeddings and instance attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

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

    @abstractmethod
    def forward(self, batch: BagBatch) -> AggregatorOutput:
        """Embeds every bag of the batch.

        Args:
            batch: Packed bags with features of width ``in_features``, in any floating dtype.

        Returns:
            Embeddings (B, E) and instance attention (ΣN,).
        """
