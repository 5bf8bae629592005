"""Interface of all aggregators: a batch of bags to slide embeddings and instance attention."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wsi_ncmi.core.arguments import described, whole_number, whole_numbers
from wsi_ncmi.core.errors import InputError
from wsi_ncmi.mil.augmentation import drop_features, mix_instances
from wsi_ncmi.mil.bags import BagBatch
from wsi_ncmi.mil.inputs import pack_bags

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


class Aggregator(nn.Module):
    """Base of the multiple-instance models.

    Made with ``num_classes``, a model is a classifier like any of PyTorch's: it takes bags as a matrix, a
    padded batch or a list and gives logits (B, C). Without, it gives the slide embedding (B, E), which is
    what a criterion with ``in_features`` takes that has its own head; so the training of this package works.

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
        head: The classifier, E → C; None without.
        standardises_means: The statistics of :meth:`set_input_statistics` are those of the bags' means.

    Raises:
        InputError: A width below one.

    Example:
        >>> from wsi_ncmi.mil import GatedABMIL
        >>> model = GatedABMIL(in_features=1024, num_classes=2).eval()
        >>> model(torch.randn(500, 1024)).shape
        torch.Size([1, 2])
        >>> logits, attention = model(torch.randn(4, 90, 1024), lengths=[90, 7, 31, 2], return_attention=True)
        >>> logits.shape, attention.shape
        (torch.Size([4, 2]), torch.Size([4, 90]))
    """

    standardises_means = False

    def __init__(self, in_features: int, embedding_width: int) -> None:
        super().__init__()
        self.in_features = whole_number(in_features, "The width of an aggregator's features, in_features,", 1)
        self.embedding_width = whole_number(embedding_width, "The width of an aggregator's embedding", 1)
        self.head: nn.Module | None = None
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
        features = self.standardised(self.checked(batch))
        if self.training and self.feature_dropout > 0:
            features = drop_features(features, batch, self.feature_dropout)
        if self.training and self.mixup > 0:
            features = mix_instances(features, batch, self.mixup)
        return features

    def checked(self, batch: BagBatch) -> Tensor:
        """The instance features (ΣN, D) in the model's dtype.

        Raises:
            InputError: They have another width than the model.
        """
        if batch.features.shape[1] != self.in_features:
            raise InputError(
                f"The features have width {batch.features.shape[1]} but the model was made for "
                f"{self.in_features}; use the features of the encoder that it was trained on."
            )
        return batch.features.to(self.input_mean.dtype)

    def standardised(self, features: Tensor) -> Tensor:
        """Features (…, D) at mean 0 and deviation 1 over the training, where the model asks for it."""
        return (features - self.input_mean) * self.input_scale if self.standardise else features

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

    def add_head(self, num_classes: int | None) -> None:
        """Puts the published classifier on top, :attr:`head`; None puts none there.

        The random numbers of the caller go on as without it: the same seed gives the same aggregator.
        """
        if num_classes is not None:
            with torch.random.fork_rng(devices=[]):
                self.head = self.make_head(whole_number(num_classes, "The number of classes", 2))

    def forward(
        self,
        features: Any,
        batch_labels: Tensor | None = None,
        *,
        lengths: Any = None,
        mask: Any = None,
        coords: Any = None,
        labels: Any = None,
        return_attention: bool = False,
    ) -> Any:
        """Classifies (or embeds) bags; padding never changes a result.

        Args:
            features: One bag (N, D), padded bags (B, N, D), bags one after the other (ΣN, D) with
                ``lengths``, or a list of (N, D): tensors or numpy arrays, of any floating dtype. A
                :class:`BagBatch` goes to :meth:`embed` as it is.
            batch_labels: Labels that go to :meth:`embed` with a :class:`BagBatch`.
            lengths: Instances of each bag, (B,).
            mask: (B, N), True where a row is an instance; in place of ``lengths``.
            coords: Places of the instances, in the layout of the features with 2 in place of D.
            labels: Class of each bag, (B,): the loss terms of the model's own come back too, see below.
            return_attention: Give the attention too.

        Returns:
            Logits (B, C), or the embedding (B, E) of a model without classifier. With ``return_attention`` a
            tuple with the attention behind it, in the layout of the features: (N,), (B, N), 0 for padding, or
            a list of (N,); it sums to 1 in each bag. With ``labels`` also, as the last, the sum of the
            model's own terms of the training objective, to be added to the loss (0 in evaluation mode).

        Raises:
            InputError: No such bags, features of another width or device, or numbers that aren't finite.
        """
        if isinstance(features, BagBatch):
            return self.embed(features, labels if batch_labels is None else batch_labels)
        if batch_labels is not None:
            raise InputError("All but the features is given to a model by name: lengths=, mask= or labels=.")
        batch, unpack = pack_bags(features, lengths=lengths, mask=mask, coords=coords)
        device = self.input_mean.device
        if batch.features.device != device:
            raise InputError(
                f"The features are on {batch.features.device} and the model on {device}; move one with .to()."
            )
        known = self._labels(labels, batch)
        output = self.embed(batch, known)
        result = output.embedding
        if self.head is not None:
            result = self.head(result.to(next(self.head.parameters()).dtype))
        if device.type == "cpu" and not torch.isfinite(result).all():  # a GPU would be waited for
            bad = (~torch.isfinite(batch.features).all(dim=1)).sum()
            if bad:
                raise InputError(
                    f"{bad} of {len(batch.features)} instances hold NaN or infinity; leave them out."
                )
        more: list[Any] = [unpack(output.attention)] if return_attention else []
        if labels is not None:
            more.append(sum(output.auxiliary.values(), result.new_zeros(())))
        return (result, *more) if more else result

    def _labels(self, labels: Any, batch: BagBatch) -> Tensor:
        """Checked labels; without any, zeros for terms that need some and are not asked for."""
        if labels is None:
            return torch.zeros(len(batch), dtype=torch.int64, device=batch.features.device)
        y = whole_numbers(labels, "The labels", f"({len(batch)},), one class index a bag")
        if y.shape != (len(batch),):
            raise InputError(
                f"The labels must be ({len(batch)},), one class index a bag, got {described(y)}; padded bags "
                "go with lengths= or mask=."
            )
        classes = getattr(self.head, "out_features", None)
        if y.device.type == "cpu" and (y.min() < 0 or (classes is not None and y.max() >= classes)):
            raise InputError(
                f"The labels are {y.tolist()[:8]}; number the classes from 0 to "
                f"{'C − 1' if classes is None else classes - 1}."
            )
        return y.to(batch.features.device, torch.int64)

    def embed(self, batch: BagBatch, labels: Tensor | None = None) -> AggregatorOutput:
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
        raise NotImplementedError(f"{type(self).__name__} lacks the method embed(batch, labels)")
