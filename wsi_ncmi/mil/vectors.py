"""Linear and multi-layer models of one vector a slide: a slide encoder's, or the mean of the tiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_ncmi.mil.augmentation import FastDropout
from wsi_ncmi.mil.base import Aggregator, AggregatorOutput, BagBatch
from wsi_ncmi.mil.segments import promote, segment_mean


class Linear(Aggregator):
    """The slide's vector itself, standardised; the linear map to the classes is the head's.

    A bag of several vectors (tiles, or a patient's slides) is averaged first; every one has the attention
    1/N. With a head it is logistic regression, the linear probe of the slide encoders' papers.

    Args:
        in_features: Width D of the vectors = width of the embedding.
        num_classes: Number of classes C of the classifier on top; None = none, the embedding is the result.
        input_dropout: Dropout probability on the elements of the vector.
    """

    standardises_means = True

    def __init__(self, in_features: int, num_classes: int | None = None, input_dropout: float = 0.0) -> None:
        super().__init__(in_features, in_features)
        self.input_dropout = FastDropout(input_dropout)
        self.add_head(num_classes)

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag (see :class:`Aggregator`)."""
        features = self.checked(batch)
        mean = segment_mean(features, batch).to(features.dtype)  # which sums halves as floats
        vector = self.input_dropout(self.standardised(mean))
        attention = batch.lengths.to(vector.dtype).reciprocal()[batch.bag_index]
        return AggregatorOutput(promote(self._transform(vector)), attention)

    def _transform(self, vector: Tensor) -> Tensor:
        return vector


class MLP(Linear):
    """Hidden layers on the slide's vector, h = dropout(relu(W h + b)).

    Args:
        in_features: Width D of the vectors.
        num_classes: Number of classes C of the classifier on top; None = none, the embedding is the result.
        hidden: Width of the layers = width of the embedding.
        layers: Hidden layers.
        dropout: Dropout probability after each of them.
        input_dropout: Dropout probability on the elements of the vector.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int | None = None,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.25,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, None, input_dropout)
        self.embedding_width = hidden
        widths = (in_features, *[hidden] * layers)
        self.layers = nn.ModuleList(map(nn.Linear, widths, widths[1:]))
        self.dropout = FastDropout(dropout)
        self.add_head(num_classes)

    def _transform(self, vector: Tensor) -> Tensor:
        for layer in self.layers:
            vector = self.dropout(torch.relu(layer(vector)))
        return vector
