"""Mean and max pooling, the baselines of the attention models."""

import torch
from torch import Tensor, nn

from wsi_ncmi.mil.augmentation import FastDropout
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.segments import segment_max, segment_mean


class _Pool(Aggregator):
    def __init__(
        self,
        in_features: int,
        num_classes: int | None = None,
        hidden: int = 128,
        dropout: float = 0.25,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, hidden)
        self.input_dropout = FastDropout(input_dropout)
        self.projection = nn.Linear(in_features, hidden)
        self.dropout = FastDropout(dropout)
        self.add_head(num_classes)

    def _project(self, batch: BagBatch) -> Tensor:
        features = self.input_dropout(self.prepared(batch))
        hidden: Tensor = self.dropout(self.projection(features).relu())
        return hidden


class MeanPool(_Pool):
    """Mean of the projected instances; every instance has the attention 1/N.

    Source: the mean operator of Ilse et al., arXiv 1802.04712, section 2.3.

    Args:
        in_features: Width D of the instance features.
        num_classes: Number of classes C of the classifier on top; None = none, the embedding is the result.
        hidden: Width of the projection = width of the embedding.
        dropout: Dropout probability after the projection.
        input_dropout: Dropout probability on the instance features.
    """

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`)."""
        hidden = self._project(batch)
        embedding = segment_mean(hidden, batch)
        attention = batch.lengths.to(embedding.dtype).reciprocal()[batch.bag_index]
        return AggregatorOutput(embedding, attention)


class MaxPool(_Pool):
    """Maximum of the projected instances, element by element.

    An instance's attention is its share of the embedding's elements: the number of elements in which it
    is the maximum (ties shared equally) over E. It explains the result and carries no gradient.

    Source: the max operator of Ilse et al., arXiv 1802.04712, section 2.3.

    Args:
        in_features: Width D of the instance features.
        num_classes: Number of classes C of the classifier on top; None = none, the embedding is the result.
        hidden: Width of the projection = width of the embedding.
        dropout: Dropout probability after the projection.
        input_dropout: Dropout probability on the instance features.
    """

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`)."""
        hidden = self._project(batch)
        embedding = segment_max(hidden, batch)
        with torch.no_grad():
            wins = (hidden == embedding[batch.bag_index]).to(embedding.dtype)
            ties = wins.new_zeros(embedding.shape).index_add_(0, batch.bag_index, wins)
            attention = (wins / ties[batch.bag_index]).mean(dim=1)
        return AggregatorOutput(embedding, attention)
