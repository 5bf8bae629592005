"""Interface of all aggregators: a batch of bags to slide embeddings and instance attention."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.augmentation import drop_features, mix_instances
from wsi_ncmi.mil.bags import BagBatch

__all__ = ["Aggregator", "AggregatorOutput", "BagBatch"]


@dataclass(frozen=True)
class AggregatorOutput:
    """Slide embeddings and instance attention of a batch.

    Attributes:
        embedding: One vector a bag, (B, E), float32 at least; what a criterion takes.
        attention: Weight of each instance in its bag, (ΣN,), summing to 1 within the bag. What it means for a
            model with several branches is in its ``ModelConfig.reported_attention``.
        auxiliary: Scalars of the model's own that belong to the training objective, by name, already
            weighted: a loop adds their sum to the loss. Empty in evaluation mode.
        branches: Attention of each branch or class where the model has several, (ΣN, K), each column summing
            to 1 within the bag.
    """

    embedding: Tensor
    attention: Tensor
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)
    branches: Tensor | None = None


class Aggregator(nn.Module, ABC):
    """Base of the multiple-instance models; the classifier is not here but in the criterion.

    Args:
        in_features: Width D of the instance features.
        embedding_width: Width E of the slide embedding.

    Attributes:
        standardise: Whether each feature is brought to mean 0 and deviation 1 (over the training instances,
            see :meth:`set_input_statistics`) before anything else.
        feature_dropout: Share of features dropped from whole bags in training (:func:`drop_features`).
        mixup: α of :func:`mix_instances` in training; 0 mixes nothing.
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
        self.feature_dropout = 0.0
        self.mixup = 0.0
        self.input_mean: Tensor
        self.input_scale: Tensor
        self.register_buffer("input_mean", torch.zeros(in_features))
        self.register_buffer("input_scale", torch.ones(in_features))

    @property
    def needs_coordinates(self) -> bool:
        """True where batches must hold the tiles' coordinates (``BagBatch.coordinates``)."""
        return False

    def set_input_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Sets what ``standardise`` subtracts and divides by.

        Args:
            mean: Mean of each feature over the training instances, (D,).
            deviation: Standard deviation, (D,); a feature that never varies is only centred.
        """
        self.input_mean.copy_(mean)
        self.input_scale.copy_(torch.where(deviation > 0, 1.0 / deviation.clamp_min(1e-12), 1.0))

    def prepared(self, batch: BagBatch) -> Tensor:
        """The instance features as the model takes them, (ΣN, D).

        In the model's dtype, standardised where asked, and in training with the asked perturbations.

        Raises:
            InputError: The features have another width than the model.
        """
        if batch.features.shape[1] != self.in_features:
            raise InputError(
                f"The features have width {batch.features.shape[1]} but the model was made for "
                f"{self.in_features}; use the features of the encoder that it was trained on."
            )
        features = batch.features.to(self.input_mean.dtype)
        if self.standardise:
            features = (features - self.input_mean) * self.input_scale
        if self.training and self.feature_dropout > 0:
            features = drop_features(features, batch, self.feature_dropout)
        if self.training and self.mixup > 0:
            features = mix_instances(features, batch, self.mixup)
        return features

    def needed_labels(self, labels: Tensor | None, batch: BagBatch, term: str) -> Tensor:
        """The labels, for a term of the training objective that can't do without.

        Args:
            labels: What the caller gave.
            batch: The batch.
            term: What needs them, for the message.

        Raises:
            InputError: No labels, or not one a bag.
        """
        if labels is None or labels.shape != (len(batch),):
            found = "none" if labels is None else f"the shape {tuple(labels.shape)}"
            raise InputError(
                f"{type(self).__name__} learns with {term}, which needs one label a bag ({len(batch)},), got "
                f"{found}; call model(batch, labels) in training, or set the term's weight to 0."
            )
        return labels

    def make_head(self, num_classes: int) -> nn.Linear:
        """The published classifier on the embedding: a linear layer E → C with fresh weights."""
        return nn.Linear(self.embedding_width, num_classes)

    @abstractmethod
    def forward(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
        """Embeds every bag of the batch.

        Args:
            batch: Packed bags with features of width ``in_features``, in any floating dtype.
            labels: Class index of each bag, int64 (B,); read in training alone, by models with an auxiliary
                loss that needs them.

        Returns:
            Embeddings (B, E), instance attention (ΣN,) and, in training, the model's auxiliary losses.

        Raises:
            InputError: Features of another width, or labels missing where they are needed.
        """
